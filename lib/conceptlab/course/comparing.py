"""Tables of notebook 04 that compare methods in the lab's table: demands met, near domains never looked at, pairs."""

from __future__ import annotations

from collections.abc import Sequence

from ..core import mean_interval
from .erasing import Numbers, counted, shown
from .plots.pisces import METHOD_STYLE
from .tables import Grid


def gates_grid(tables: Sequence[Numbers], method: str = "pisces") -> Grid:
    """How many edits of each model met the demands on dev: where none does, the search keeps the best all the same."""
    rows = []
    for t in tables:
        fitted = [t.cells.get((c, method, "fit", ""), {}).get("passed_gates") for c in t.concepts()]
        met = [x.value for x in fitted if x is not None]
        rows.append((t.model, len(met), sum(x > 0 for x in met)))
    return Grid(rows, ["model", "edits of PISCES", "met the gates on dev"], "The search for a strength")


def unseen_grid(table: Numbers, concept: str, methods: Sequence[str]) -> Grid:
    """What is kept of near domains that no choice has seen, beside what is kept of those that were looked at."""
    columns = {"taken from it": "efficacy_known", "kept: neighbour and general": "specificity_known",
               "kept: unseen near domain": "specificity_unseen_known"}  # fmt: skip
    rows = [(METHOD_STYLE[m][0], *(shown(table.get(concept, m, x)) for x in columns.values())) for m in methods]
    title = f"{concept.replace('_', ' ').capitalize()} in the table: known test questions"
    return Grid([row for row in rows if row[-1] != "-"], ["edit", *columns], title)


def unseen_means_grid(table: Numbers, methods: Sequence[str], at_least: int = 5) -> Grid:
    """Over concepts: what is kept of near domains that were looked at, of those never looked at, and the difference.

    All columns of a row are over the same concepts, those that have all of its numbers; of methods for which these are
    at least `at_least`.
    """
    seen, unseen, rows = "specificity_known", "specificity_unseen_known", []
    for m in methods:
        found = [table.column(m, x) for x in ("efficacy_known", seen, unseen)]
        both = [c for c in found[2] if all(c in column for column in found)]
        if len(both) >= at_least:
            means = [table.mean(m, x, both) for x in ("efficacy_known", seen, unseen)]
            gap = mean_interval([found[1][c].value - found[2][c].value for c in both])
            rows.append((METHOD_STYLE[m][0], *map(shown, means), shown(gap), len(both)))
    columns = ["method", "taken from the target", "kept: neighbour and general", "kept: unseen near domain",
               "the former minus the latter", "concepts"]  # fmt: skip
    return Grid(rows, columns, f"{table.model}: near domains that no choice has seen, known test questions")


def pairs_grid(tables: Sequence[Numbers], pairs: Sequence[tuple[str, str]]) -> Grid:
    """One method minus another, paired over concepts, axis by axis."""
    axes = {"efficacy": "efficacy_known", "specificity": "specificity_known", "coherence": "coherence",
            "overall": "overall_known", "kept by a clue": "left_clue"}  # fmt: skip
    rows = []
    for t in tables:
        for one, other in pairs:
            found = [t.difference(one, other, metric) for metric in axes.values()]
            if found[0].measurable:
                name = f"{METHOD_STYLE[one][0]} minus {METHOD_STYLE[other][0]}"
                ns = {axis: x.n for axis, x in zip(axes, found, strict=True)}
                rows.append((t.model, name, counted(ns), *map(shown, found)))
    return Grid(rows, ["model", "difference", "concepts", *axes], "Paired over concepts, test questions")
