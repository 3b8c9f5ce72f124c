"""Numbers per question of the attacks' cells, and what they say over all concepts together.

An interval over the twenty questions of one concept is wide. The numbers of several concepts are put together (each
question counts once), the same questions for every method, so that methods can be compared question by question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..attacks import MEASURES, AttackResult, Cost, Hits, Setting, floor_of, per_question
from ..core import Cell, Interval, bootstrap, clustered, paired_bootstrap, recovered_share, share_difference
from ..evaluation import QuestionScores

Read = Callable[[Cell], dict | None]  # the record of a cell, as `Store.record` returns it
DIRECT = "direct"  # the attack that asks plainly


@dataclass(frozen=True)
class Record:
    """What one cell found, per question; the lists run over strengths, inside over questions."""

    labels: list[str]
    values: list[list[float]]
    floors: list[list[float]] = field(default_factory=list)  # guessing, where the numbers are no margins
    asked: list[int] | None = None  # which of the concept's questions; None: all

    @classmethod
    def read(cls, raw: dict | None) -> Record | None:
        """What the store kept with a cell, where it is a record."""
        return cls(**raw) if raw and "values" in raw else None

    def ceiling(self) -> AttackResult:
        """As the result of an attack, for `summarise`."""
        values = tuple(Hits(torch.tensor(row)) for row in self.values)
        return AttackResult(tuple(range(len(values))), values, (), Cost(0, 0, 0.0))


def _record(records: Read, concept: str, method: str, attack: str) -> Record | None:
    return Record.read(records(Cell(concept, method, attack, "cost")))


def record_of(name: str, result: AttackResult, setting: Setting) -> Record:
    """The numbers of one attack's result, to four decimals."""
    measure = MEASURES.get(name, "margin")
    floors = [floor_of(name, result, i) for i in range(len(result.values))]
    values = [_rounded(per_question(value, measure)) for value in result.values]
    asked = None
    if len(values[0]) != len(setting.questions):
        ids = {e.id for e in result.transcript}
        asked = [i for i, q in enumerate(setting.questions) if q.id in ids]
    labels = [*result.labels] if result.labels else [str(step) for step in result.steps]
    return Record(labels, values, [_rounded(x) for x in floors if x is not None], asked)


def direct_record(scores: QuestionScores) -> Record:
    """Margins and right answers (1 or 0) of the questions asked plainly."""
    return Record(["margin", "correct"], [_rounded(scores.margin), _rounded(scores.correct.float())])


def _rounded(values: Tensor) -> list[float]:
    return [round(float(x), 4) for x in values]


# ---- over all concepts ------------------------------------------------------------------------------------
def pooled(
    records: Read, concepts: Sequence[str], method: str, attack: str, against: str = "pisces", guess: float = 0.25
) -> dict[str, dict[str, Interval]]:
    """label -> metric -> number, over the questions of those concepts that have the cell (and the method's direct one).

    `share`, `kept` or `below_ceiling` as in `summarise`; `minus_<against>`: share or kept minus that of another method,
    on the same questions; `n_concepts`. Of the attack "direct": the accuracy `kept` above guessing, the `margin_kept`,
    and the margin `lost`, in nats.
    """
    rows = [columns_of(records, c, method, attack, guess) for c in concepts]
    others = [columns_of(records, c, against, attack, guess) for c in concepts]
    found = {}
    for label in dict.fromkeys(key for row in rows for key in row):
        chosen = [i for i, row in enumerate(rows) if label in row]
        mine = _joined(rows[i][label] for i in chosen)
        first = _record(records, concepts[chosen[0]], method, attack)
        counted = attack == DIRECT or bool(first and first.floors)
        name = "margin_kept" if label == "margin" else "kept" if counted else "share"
        groups = _concepts(rows[i][label] for i in chosen)
        n = float(len(chosen))
        found[label] = {"n_concepts": Interval(n, n, n, len(chosen))}
        found[label] |= _numbers(name, mine, groups, counted and label != "margin")
        if attack != DIRECT and method != "original" and not counted:
            asked = [_record(records, concepts[i], "original", attack) for i in chosen]
            tops = [top for top in asked if top is not None and label in top.labels]
            if len(tops) == len(asked):
                ceiling = torch.cat([torch.tensor(top.values[top.labels.index(label)]) for top in tops])
                found[label]["below_ceiling"] = _difference(ceiling, mine[2], groups)
        both = [i for i in chosen if label in others[i]]
        if method not in (against, "original") and both and name in found[label]:
            own, other = (_joined(source[i][label] for i in both) for source in (rows, others))
            difference = share_difference(own, other, _concepts(rows[i][label] for i in both))
            if difference.measurable:
                found[label][f"minus_{against}"] = difference
    return found


def columns_of(records: Read, concept: str, method: str, attack: str, guess: float = 0.25) -> dict[str, tuple]:
    """label -> (top, bottom, value) per question of one concept; empty where a record is missing."""
    mine, top = _record(records, concept, method, attack), _record(records, concept, "original", attack)
    before, after = (_record(records, concept, m, DIRECT) for m in ("original", method))
    if mine is None or before is None or after is None:
        return {}
    if attack == DIRECT:
        original, now = (torch.tensor(r.values) for r in (before, mine))
        bottoms = torch.zeros_like(now[0]), torch.full_like(now[1], guess)
        return dict(zip(mine.labels, zip(original, bottoms, now, strict=True), strict=True))
    found = {}
    for i, (label, values) in enumerate(zip(mine.labels, mine.values, strict=True)):
        if mine.floors:
            if top is not None and label in top.labels:
                columns = (top.values[top.labels.index(label)], mine.floors[i], values)
                found[label] = tuple(torch.tensor(x) for x in columns)
            continue
        asked = range(len(values)) if mine.asked is None else mine.asked
        found[label] = tuple(torch.tensor([r[j] for j in asked]) for r in (before.values[0], after.values[0]))
        found[label] += (torch.tensor(values),)
    return found


def _joined(rows: Iterable[tuple]) -> tuple[Tensor, Tensor, Tensor]:
    top, bottom, value = (torch.cat(column) for column in zip(*rows, strict=True))
    return top, bottom, value


def _concepts(rows: Iterable[tuple]) -> Tensor:
    """For each question of the joined rows, which concept it belongs to."""
    return torch.cat([torch.full((len(row[0]),), i) for i, row in enumerate(rows)])


def _difference(a: Tensor, b: Tensor, groups: Tensor) -> Interval:
    """Mean of a - b: over concepts for three and more, else over questions."""
    parts = [(a - b)[groups == i] for i in groups.unique()]
    return clustered(parts) if len(parts) > 2 else paired_bootstrap(a, b)


def _numbers(name: str, columns: tuple[Tensor, Tensor, Tensor], groups: Tensor, counted: bool) -> dict[str, Interval]:
    """The value, and its place between bottom and top under the name `share`, `kept` or `margin_kept`.

    The place is a claim about concepts in general: its interval is over the concepts, of which `groups` tells.
    """
    top, bottom, value = columns
    found = {"value": bootstrap(value > 0 if counted else value, over="questions")}
    if name == "margin_kept":
        found["lost"] = paired_bootstrap(top, value)
    if (place := recovered_share(top, bottom, value, groups)).measurable:
        found[name] = place
    return found
