"""Tables of notebook 08 over all models whose tables are there: what `Grid` takes (rows, columns, caption).

What has not been measured is left out, and the caption says which command measures it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...core import Interval, data_dir, mean_interval
from .bench import MAIN
from .teaching import RATES
from .view import MaskingTable, masking_table

Lines = list[tuple[str, ...]]
Page = tuple[Lines, list[str], str]
Lacks = Callable[[MaskingTable], set[str]]
WANTED = 0.8  # of the concepts, each with an interval above 0
ATTEMPTS = {  # kind of the cells -> what was tried
    "": "all layers ranked together",
    "precise": "the same, on all known questions",
    "per_layer": "the same share of every layer",
}
RANKED_BY = {  # method -> what the ranking has read
    "own": "the concept's questions",
    "equal": "none: equally active vectors",
    "masked": "its questions without subject words",
    "words": "its bare words",
}


def attempts_page(tables: Mapping[str, MaskingTable]) -> Page:
    """Is a concept's own set surely costlier than equally active vectors, for four concepts of five? Every attempt."""
    rows: Lines = []
    for model, table in tables.items():
        for kind, said in ATTEMPTS.items():
            found = list(table.each("own-equal", "own_cost", kind).values())
            if found:
                above, sure = (
                    sum(x > 0 for x in part) for part in zip(*((f.value, f.low) for f in found), strict=True)
                )
                mean = mean_interval(found) if len(found) > 2 else "-"
                reached = "reached" if sure >= WANTED * len(found) else "missed"
                rows.append((model, said, str(mean), f"{above} of {len(found)}", f"{sure} of {len(found)}", reached))
    missing = _missing(tables, lambda t: {k for k in ATTEMPTS if not t.each("own-equal", "own_cost", k)}, ATTEMPTS)
    columns = ["model", "ranked and asked", "extra cost (nats)", "above 0", "interval above 0", "four of five"]
    return rows, columns, "Own set minus equally active vectors, concept by concept" + missing


def shares_page(tables: Mapping[str, MaskingTable]) -> Page:
    """Every share that was masked: the concept, the others, equally active vectors where these could be drawn."""
    rows: Lines = []
    for model, table in tables.items():
        for share in table.shares:
            own, others = (table.mean("own", m, share=share) for m in ("own_cost", "other_cost"))
            extra = table.mean("own-equal", "own_cost", share=share)
            if own and others:
                beside = (str(extra), str(extra.n)) if extra else ("-", "0")
                rows.append((model, f"{100 * float(share):g} %", str(own), str(others), str(own.n), *beside))
    columns = ["model", "masked", "the concept loses", "others lose", "concepts", "own minus equally active", "of them"]
    told = {"": "further shares (--methods curves)"}
    missing = _missing(tables, lambda t: {""} if len(t.shares) < 2 else set(), told)
    return rows, columns, "What grows with the share: nats per token, means over concepts" + missing


def words_page(tables: Mapping[str, MaskingTable]) -> Page:
    """How much is word detection: sets ranked with and without words, facts asked for with and without words.

    The last row of a model is paired: what the own set costs beyond equally active vectors, in both ways of asking.
    """
    rows = []
    for model, table in tables.items():
        if not table.each("own", "own_cost", "clues"):
            continue
        for method, said in RANKED_BY.items():
            rows.append((model, said, *_both(table, method)))
        rows.append((model, "own minus equally active", *_both(table, "own-equal")))
    columns = ["model", "set ranked by", "usual questions", "concepts", "without subject words", "concepts asked"]
    missing = _missing(tables, lambda t: set() if t.each("own", "own_cost", "clues") else {""}, {"": "--methods words"})
    return rows, columns, "What facts of the concept lose (nats per token), by how they are asked for" + missing


def _both(table: MaskingTable, method: str) -> tuple[str, ...]:
    found = (table.each(method, "own_cost", kind) for kind in ("", "clues"))
    return tuple(x for each in found for x in (_mean(each), str(len(each))))


def _mean(each: Mapping[str, Interval]) -> str:
    values = [x.value for x in each.values()]
    return str(mean_interval(values)) if len(values) > 2 else ", ".join(f"{v:.2f}" for v in values) or "-"


def taught_page(tables: Mapping[str, MaskingTable]) -> Page:
    """The arms of every model that has taught facts; the caption counts the rates at which own and random compare."""
    rows: Lines = []
    told = []
    for model, table in tables.items():
        found = table.taught_rows()
        rows += [(model, *row) for row in found]
        if found:
            met = sum(row[0] == "own minus random" for row in found)
            told.append(f"{met} of {len(RATES)} rates ({model})")
    columns = ["model", "taught through", "rate", "concepts", "steps", "new wordings right", "wrong options",
               "surer about untaught", "drift", "own concept loses", "others lose"]  # fmt: skip
    caption = "Means over concepts at equal loss; own and random vectors can be compared at " + ", ".join(told)
    return rows, columns, caption if told else "No table has taught facts (--methods teach)"


def ladder_page() -> Page:
    """One row per model that has a table in data/results, the weakest first."""
    rows = []
    for path in sorted((data_dir() / "results").glob("specialisation_*.csv")):
        table = masking_table(path.stem.removeprefix("specialisation_"))
        known = [x.value for x in table.each("known", "accuracy", share="").values()]
        score = table.score_parts("own")
        if known and score:
            extra, gap = (table.mean(*x) for x in (("own-equal", "own_cost"), ("own", "gap")))
            often = table.mean("frequency", "spearman_gap", share="")
            right = sum(known) / len(known)
            shown = (x or "-" for x in (extra, gap, score["score"], score["floor"], often))
            rows.append((right, (table.name, f"{right:.2f}", str(score["score"].n), *map(str, shown))))
    columns = ["model", "questions right", "concepts", "own minus equally active", "gap to the others", "score (PSS)",
               "its floor", "Spearman of gap and frequency"]  # fmt: skip
    few = "two models are no trend" if len(rows) == 2 else f"{len(rows)} models"
    return [row for _, row in sorted(rows)], columns, f"{100 * MAIN:g} % masked, one row per model: {few}"


def _missing(tables: Mapping[str, MaskingTable], lacks: Lacks, told: Mapping[str, str]) -> str:
    """What a caption says of stages that have not been run; `lacks`: table -> keys of `told`."""
    found = {said: [m for m, t in tables.items() if key in lacks(t)] for key, said in told.items()}
    shown = [f"{said} ({', '.join(models)})" for said, models in found.items() if models]
    return f"; not measured yet: {', '.join(shown)}" if shown else ""
