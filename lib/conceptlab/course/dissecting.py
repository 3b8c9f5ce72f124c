"""Tables of notebook 07 about skills forgotten by random labels, from the table of `conceptlab reproduce skills`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..core import Interval, results, row_interval
from .tables import Grid

TRAINED_WITH = {
    "random": "random labels", "true": "control: true labels", "salad": "control: random labels, random words",
}  # fmt: skip
Found = dict[tuple[str, str, str, str, str], Interval]


def forgetting_grid(model: str, rows: Sequence[Mapping[str, str]] | None = None) -> Grid:
    """Every skill in its original and after each training: right answers, forget gap, probe, other skills.

    `rows`: of the table (default: the one in data/results). Cells of the table that are not there are left as dashes.
    """
    found = _numbers(results("skills", model) if rows is None else rows)
    lines: list[tuple[str, ...]] = []
    for task in _tasks(found):
        first = [found.get((task, "original", "", "all", k)) for k in ("accuracy_trained", "accuracy_heldout", "probe")]
        right, held, probe = map(_shown, first)
        letters = _shown(found.get((task, "original", "", "", "letters")))
        lines.append((task, "original", right, held, "", probe, letters, ""))
        for arm, name in TRAINED_WITH.items():
            if (task, arm, "", "all", "accuracy_heldout") in found:
                lines.append((task, name, *_line(found, task, arm)))
    columns = ["skill", "trained with", "right: trained items", "right: held-out items", "forget gap",
               "probe, held-out items", "letters alone (original) or shuffled labels",
               "lost by other skills"]  # fmt: skip
    return Grid(lines, columns, "Skills forgotten by random labels: shares, 95 % intervals over items or their words")


def spill_grid(model: str, rows: Sequence[Mapping[str, str]] | None = None) -> Grid:
    """Task x task: right answers to held-out items that random labels of one skill (row) cost another (column)."""
    found = _numbers(results("skills", model) if rows is None else rows)
    tasks, lines = _tasks(found), []
    for task in tasks:
        own = found.get((task, "random", "", "all", "lost_right_heldout"))
        others = [found.get((task, "random", t, "all", "lost_right")) for t in tasks]
        lines.append((task, *(_shown(own if t == task else x) for t, x in zip(tasks, others, strict=True))))
    return Grid(lines, ["random labels of", *tasks], "Share of right answers lost, held-out items, mean of the draws")


def _line(found: Found, task: str, arm: str) -> tuple[str, ...]:
    names = ("accuracy_trained", "accuracy_heldout", "forget_gap_right", "probe")
    shown = [_shown(found.get((task, arm, "", "all", name))) for name in names]
    if arm != "random":
        shown[2] = ""
    elif shown[2] == "-":
        shown[2] = "not measurable"
    draws = [x.value for key, x in found.items() if key[:3] == (task, arm, "") and key[4] == "probe_shuffled"]
    return (*shown, f"{sum(draws) / len(draws):.2f}", _shown(found.get((task, arm, "", "all", "lost_right_others"))))


def _numbers(rows: Sequence[Mapping[str, str]]) -> Found:
    return {(r["concept"], r["method"], r["attack"], r["budget"], r["metric"]): row_interval(r) for r in rows}


def _tasks(found: Found) -> list[str]:
    return list(dict.fromkeys(key[0] for key in found))


def _shown(x: Interval | None) -> str:
    return "-" if x is None else f"{x:.2f}"
