"""What a lab table says, read for a page: families of methods, methods at equal loss, and claims with a verdict.

A table grows: methods and concepts are added while a page that prints it stays. So every sentence here is made from
the table as it is, names how many concepts it stands on, and says so where a claim is not seen or cannot be told.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from ..core import Cell, Contents, Interval, bootstrap, clustered, contents, table_path
from ..erasure import methods
from .attacking import COST
from .curves import TARGET, Curve, CurveConfig, curves_of, matched
from .lab_table import FEWEST, LabTable, mean_over, table_of
from .pooled import DIRECT, pooled

# One method speaks for each family in a figure. They were named before the table was made, so that no number chose them
SPEAKERS = {
    "dictionary": ("pisces",),
    "words": ("words_both", "words"),
    "fine-tuning": ("gradient_difference", "npo", "gradient_ascent"),
    "localised": ("rocr", "rmu", "ssd"),
    "run-time": ("eco", "uld", "guard"),
    "control": ("random_norm", "random_features", "random_direction", "permuted_neurons", "other_features"),
}
LOSSES = (0.25, 0.5, 0.75, 1.0)  # nats at which methods may be compared


@dataclass(frozen=True)
class LabView:
    """A lab table, and what can be asked of it."""

    table: Contents

    @classmethod
    def read(cls, model: str, path: Path | None = None) -> LabView:
        """The table of one model in data/results, or at `path`, finished or not. Raises where there is none."""
        return cls(contents(path or table_path("lab", model)))

    def compared(self, kind: str = "fine-tuning") -> LabView:
        """The same table, of the concepts alone on which a method of this kind is scored: there all methods can be
        compared. A mean of one method over sixteen concepts beside that of another over one would compare concepts.
        """
        there = set().union(*(self.value(m, "efficacy") for m in of_kind(self, [kind])))
        if not there:
            return self
        return self.only(*there)

    # ---- what is there --------------------------------------------------------------------------------------
    @cached_property
    def numbers(self) -> LabTable:
        """The same rows as notebooks 04, 05 and 11 read them."""
        return table_of(self.table.note.get("model", ""), self.table.rows)

    @cached_property
    def concepts(self) -> list[str]:
        """Concepts with at least one scored method, in the order of the table."""
        scored = [p[0] for p, found in self.numbers.cells.items() if not p[2] and "efficacy" in found]
        return list(dict.fromkeys(scored))

    @cached_property
    def kinds(self) -> dict[str, str]:
        """Scored method -> its kind, in the order of the registry."""
        there = self.numbers.methods("efficacy")
        return {name: method.kind for name, method in methods().items() if name in there}

    def value(self, method: str, metric: str, attack: str = "", budget: str = "") -> dict[str, Interval]:
        """Concept -> number, where the table has it."""
        found = {c: self.numbers.get(c, method, metric, attack, budget) for c in self.concepts}
        return {concept: x for concept, x in found.items() if x is not None}

    def over(self, metric: str, method: str, attack: str = "", budget: str = "") -> Interval:
        """Mean over the concepts that have the number, see `mean_over`."""
        return mean_over(list(self.value(method, metric, attack, budget).values()))

    def speakers(self) -> dict[str, str]:
        """Family -> the method that speaks for it: the first of SPEAKERS that has a curve."""
        found = {}
        for family, names in SPEAKERS.items():
            first = next((name for name in names if name in self.curves), None)
            if first is not None:
                found[family] = first
        return found

    # ---- strength curves ------------------------------------------------------------------------------------
    def record(self, cell: Cell) -> dict | None:
        """What the table keeps with a cell."""
        return self._records.get((cell.concept, cell.method, cell.attack, str(cell.budget)))

    @cached_property
    def _records(self) -> dict[tuple[str, ...], dict]:
        first = (*self.numbers.seeds[:1], "0")[0]
        return {key[:4]: record for key, record in self.table.records.items() if key[4] == first}

    @cached_property
    def curves(self) -> dict[str, dict[str, Curve]]:
        """method -> concept -> strength curve; methods without one are left out."""
        scales = sorted({float(b) for _, _, attack, b in self.numbers.cells if attack == "curve" and b})
        return curves_of(self.record, self.concepts, list(methods()), scales or CurveConfig.scales)

    def common_loss(self, share: float = 0.6) -> float:
        """The largest of LOSSES that at least this share of the methods (controls apart) reach; else the smallest."""
        tops = [
            max(sum(p.lost[TARGET]) / len(p.lost[TARGET]) for p in curve)
            for method, per_concept in self.curves.items()
            if methods()[method].kind != "control"
            for curve in per_concept.values()
        ]
        reached = [loss for loss in LOSSES if tops and sum(top >= loss for top in tops) >= share * len(tops)]
        return max(reached, default=LOSSES[0])

    def at(self, loss: float, against: str = "pisces") -> dict[str, dict[str, Interval]]:
        """`matched`, without methods that reach the loss on no concept."""
        found = matched(self.curves, loss, against)
        return {method: row for method, row in found.items() if row["n_concepts"].value > 0}

    def points(self, method: str, name: str) -> list[tuple[Interval, Interval]]:
        """Strength by strength, weak first: nats lost by the target and by another set, over all concepts."""
        per_concept = [sorted(curve, key=lambda p: p.scale) for curve in self.curves.get(method, {}).values()]
        pairs = []
        for at in zip(*per_concept, strict=False):
            if all(name in point.lost for point in at):
                pairs.append((lost_over([p.lost[TARGET] for p in at]), lost_over([p.lost[name] for p in at])))
        return pairs

    # ---- attacks --------------------------------------------------------------------------------------------
    def attacked(self, attack: str, strength: str | None = None, metric: str | None = None) -> dict[str, Interval]:
        """Method -> number under an attack, over the questions of all concepts that have met it.

        Of its strength of that name, else of the last; the `metric` of that name (`pooled`), else the share that comes
        back or is kept. What is not measurable (nothing had surely been taken) is left out.
        """
        found = {}
        there = {m for _, m, a, b in self.numbers.cells if a == attack and b == COST}
        for method in [name for name in ("original", *methods()) if name in there]:
            names = self.met(method, attack)
            rows = pooled(self.record, names, method, attack) if names else {}
            chosen = [row for label, row in rows.items() if strength in (None, label)]
            keys = ("share", "kept") if metric is None else (metric,)
            numbers = [row[key] for row in chosen for key in keys if key in row]
            if numbers and (metric is not None or method != "original"):
                found[method] = numbers[-1]
        return found

    def met(self, method: str, attack: str) -> list[str]:
        """Concepts on which a method has met an attack."""
        names = [c for c in self.concepts if self.record(Cell(c, method, attack, COST))]
        return [c for c in names if self.record(Cell(c, "original", DIRECT, COST))]

    def only(self, *concepts: str) -> LabView:
        """The same table, of some concepts."""
        cells = {key: rows for key, rows in self.table.cells.items() if key[0] in concepts}
        records = {key: record for key, record in self.table.records.items() if key[0] in concepts}
        return LabView(replace(self.table, cells=cells, records=records))

    def basis(self, n: int | None = None) -> str:
        """How many concepts stand behind a number, and what its interval therefore says."""
        n = len(self.concepts) if n is None else n
        if n < FEWEST:
            names = " and ".join(c.replace("_", " ") for c in self.concepts[:2])
            told = f"{n} concept{'s' if n != 1 else ''}" + (f" ({names})" if n == len(self.concepts) else "")
            whose = "its" if n == 1 else "their"
            return f"{told}: intervals are over {whose} questions and say nothing about other concepts"
        return f"{n} concepts: intervals are over concepts"


def tally(found: Mapping[str, Interval], label: str, more: str, less: str) -> str:
    """Of so many methods how many lie surely above 0, surely below, and how many cannot be told."""
    surely = [m for m, x in found.items() if x.low > 0]
    below = [m for m, x in found.items() if x.high < 0]
    if not found:
        return f"nothing is in the table yet of this ({label}), so nothing can be said."
    rest = len(found) - len(surely) - len(below)
    parts = [f"{more} with {len(surely)}", f"{less} with {len(below)}", f"cannot be told with {rest}"]
    return f"Of {len(found)} {label}: " + ", ".join(parts) + "."


def verdict(claim: str, x: Interval | None) -> str:
    """A claim that a number is above 0, and whether it is seen here."""
    if x is None or not x.measurable:
        return f"{claim}: not measured here."
    if math.isnan(x.low):
        return f"{claim}: {x.value:.2f}, without an interval, so it is not decided here."
    said = "seen" if x.low > 0 else "the other way round here" if x.high < 0 else "not seen: the interval holds 0"
    return f"{claim}: {x}: {said}."


def lost_over(rows: Sequence[Sequence[float]]) -> Interval:
    """Mean over the questions of several concepts: the interval is over concepts for three and more."""
    values = [torch.tensor(row) for row in rows]
    return clustered(values) if len(values) >= FEWEST else bootstrap(torch.cat(values), over="questions")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def of_kind(view: LabView, kinds: Iterable[str]) -> list[str]:
    """Scored methods of some kinds."""
    wanted = set(kinds)
    return [name for name, kind in view.kinds.items() if kind in wanted]
