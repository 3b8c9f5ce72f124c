"""Reading the lab's table: one number, a mean over concepts, a paired difference, an attack, the collateral map.

Notebooks 04 to 06 and 11 ask the same table the same questions, so the answers are made here: which concepts count
(those of which the original model knows enough), what an interval is over (concepts), and what is missing. Methods,
concepts and attacks are whatever the table holds; what it does not hold is None or left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ..attacks import COUNTED
from ..core import POOLED, Interval, mean_interval, results, row_interval
from .attacking import COST, OF_EDITS
from .lab import FIT, ORIGINAL
from .pooled import DIRECT

ENOUGH = 15  # known test questions on a concept that a share can be read from
CONTROLS = ("relearning_unrelated",)  # columns that are there to compare with
AXES = ("efficacy_known", "specificity_known")
FEWEST = 3  # concepts that an interval over concepts needs
Place = tuple[str, str, str, str]  # concept, method, attack, budget


@dataclass(frozen=True)
class LabTable:
    """The numbers of one model. The attack "" holds the scores on test, "fit" what was chosen on dev."""

    model: str
    cells: Mapping[Place, Mapping[str, Interval]]
    seeds: tuple[str, ...] = ()  # of the dictionaries; the cells are those of the first

    # ---- one number -----------------------------------------------------------------------------------------
    def get(self, concept: str, method: str, metric: str, attack: str = "", budget: str = "") -> Interval | None:
        """One number, None where the table has none."""
        return self.cells.get((concept, method, attack, budget), {}).get(metric)

    def setting(self, concept: str, method: str, knob: str, default: float) -> float:
        """A strength that was chosen on dev."""
        found = self.get(concept, method, f"setting_{knob}", FIT)
        return default if found is None else found.value

    # ---- over concepts --------------------------------------------------------------------------------------
    def concepts(self, known: int = ENOUGH) -> list[str]:
        """Concepts of which the original model knows at least so many test questions."""
        found = {c: self.get(c, ORIGINAL, "known_target") for c in dict.fromkeys(place[0] for place in self.cells)}
        return sorted(c for c, x in found.items() if x is not None and x.value >= known)

    def methods(self, metric: str = "efficacy_known") -> list[str]:
        """Methods that have the metric for at least one concept, in the order of the table."""
        return list(dict.fromkeys(p[1] for p, found in self.cells.items() if p[2] == "" and metric in found))

    def column(self, method: str, metric: str) -> dict[str, Interval]:
        """concept -> number, of the concepts that count."""
        found = {c: self.get(c, method, metric) for c in self.concepts()}
        return {c: x for c, x in found.items() if x is not None and x.measurable}

    def mean(self, method: str, metric: str, among: Sequence[str] | None = None) -> Interval:
        """Mean over concepts (of `among`) with its interval, at least as wide as questions make it; not measurable
        without any."""
        return mean_over([x for c, x in self.column(method, metric).items() if among is None or c in among])

    def gaps(self, method: str, other: str, metric: str) -> dict[str, float]:
        """concept -> one method's number minus another's, of the concepts that have both."""
        mine, theirs = self.column(method, metric), self.column(other, metric)
        return {c: mine[c].value - theirs[c].value for c in mine if c in theirs}

    def difference(self, method: str, other: str, metric: str) -> Interval:
        """Mean of `gaps` with its interval over concepts."""
        found = list(self.gaps(method, other, metric).values())
        return mean_interval(found) if found else Interval.unmeasured("not in this table", 0, "concepts")

    def change(self, method: str, after: str, before: str) -> Interval:
        """Mean over concepts of one metric minus another of the same method."""
        now, then = self.column(method, after), self.column(method, before)
        found = [now[c].value - then[c].value for c in now if c in then]
        return mean_interval(found) if found else Interval.unmeasured("not in this table", 0, "concepts")

    def correlation(self, one: tuple[str, str], other: tuple[str, str]) -> Interval:
        """Pearson's r over concepts of two (method, metric), with Fisher's interval; below four concepts none."""
        x, y = self.column(*one), self.column(*other)
        both = [c for c in x if c in y]
        if len(both) < 4:
            return Interval.unmeasured("fewer than four concepts", len(both), "concepts")
        pair = torch.tensor([[x[c].value for c in both], [y[c].value for c in both]]).double()
        r = float(torch.corrcoef(pair)[0, 1])
        middle, half = math.atanh(max(min(r, 0.999999), -0.999999)), 1.959964 / math.sqrt(len(both) - 3)
        return Interval(r, math.tanh(middle - half), math.tanh(middle + half), len(both), "concepts")

    def covered(self, methods: Sequence[str], metric: str = "efficacy_known", at_least: int = 1) -> list[str]:
        """Those of `methods` that have the metric for at least so many concepts, in the order given."""
        return [m for m in methods if len(self.column(m, metric)) >= at_least]

    def points(self, method: str, metrics: Sequence[str] = AXES) -> list[list[float]]:
        """One row per concept that has all metrics: their values."""
        columns = [self.column(method, metric) for metric in metrics]
        return [[column[c].value for column in columns] for c in columns[0] if all(c in x for x in columns)]

    def collateral(self, method: str) -> dict[str, dict[str, Interval]]:
        """erased concept -> asked concept -> change of the right answers' log-probability, in nats per token."""
        start = "collateral_gold_"
        found: dict[str, dict[str, Interval]] = {}
        for (concept, name, attack, _), metrics in self.cells.items():
            if name == method and attack == "":
                row = {m.removeprefix(start): x for m, x in metrics.items() if m.startswith(start)}
                found |= {concept: row} if row else {}
        return found

    # ---- attacks --------------------------------------------------------------------------------------------
    def attacked(self, concept: str = POOLED) -> list[str]:
        """Methods that were attacked on a concept; of `all`, over all attacked concepts together."""
        found = dict.fromkeys(m for c, m, a, _ in self.cells if c == concept and a == DIRECT)
        return [m for m in found if m != ORIGINAL]

    def attacks(self, method: str, concept: str = POOLED) -> list[str]:
        """Attacks on a method, in the order of the table; the plain questions are none."""
        found = dict.fromkeys(a for c, m, a, _ in self.cells if (c, m) == (concept, method))
        return [a for a in found if a not in ("", FIT, DIRECT, "curve")]

    def strengths(self, method: str, attack: str, metric: str, concept: str = POOLED) -> dict[str, Interval]:
        """budget -> number of one attack, from the weakest to the strongest."""
        found = {
            budget: metrics[metric]
            for (c, m, a, budget), metrics in self.cells.items()
            if (c, m, a) == (concept, method, attack) and budget != COST and metric in metrics
        }
        return {budget: x for budget, x in found.items() if x.measurable and math.isfinite(x.low)}

    def under(
        self, method: str, attack: str, metric: str, concept: str = POOLED, budget: str | None = None
    ) -> Interval | None:
        """The number at a budget, or at the greatest; None where it was not run, or is not measurable."""
        found = self.strengths(method, attack, metric, concept)
        return found.get(budget) if budget is not None else next(reversed(found.values()), None)

    def tests(self, method: str) -> list[str]:
        """Attacks with a recovered share that say something about an erasure; the others stand in `not_tests`."""
        no = {attack for names in self.not_tests(method).values() for attack in names}
        return [a for a in self._shared(method) if a not in no]

    def _shared(self, method: str) -> list[str]:
        """Attacks whose numbers are margins, so that a share of what was lost can be read from them."""
        return [a for a in self.attacks(method) if a not in COUNTED and self.under(method, a, "value")]

    def not_tests(self, method: str) -> dict[str, list[str]]:
        """why -> attacks: controls, those of somebody who holds the edit, and those that the original fails itself.

        The original fails where it has lost more than half of its margin under the same attack.
        """
        names = self._shared(method)
        plain, failed = self.under(ORIGINAL, DIRECT, "value", budget="margin"), []
        for attack in names:
            top = self.under(ORIGINAL, attack, "value")
            if plain is not None and top is not None and top.value < plain.value / 2:
                failed.append(attack)
        found = {
            "a control: it shows what any training repairs": [a for a in names if a in CONTROLS],
            "needs the edit itself": [a for a in names if a in OF_EDITS],
            "the original itself fails under it": failed,
        }
        return {why: attacks for why, attacks in found.items() if attacks}

    def n_attacked(self) -> int:
        """How many concepts have attacked edits."""
        return len({c for c, m, a, _ in self.cells if a == DIRECT and m != ORIGINAL and c != POOLED})


def lab_table(model: str, read: Callable[[str, str], Sequence[Mapping[str, str]]] = results) -> LabTable:
    """The lab's table of a model from data/results; empty, with a note on how to make it, where there is none."""
    return table_of(model, read("lab", model))


def table_of(model: str, rows: Sequence[Mapping[str, str]]) -> LabTable:
    """The rows of a lab table by their place; of several seeds of the dictionaries, those of the first."""
    seeds = tuple(sorted({row["seed"] for row in rows}, key=lambda s: (len(s), s)))
    cells: dict[Place, dict[str, Interval]] = {}
    for row in rows:
        if row["seed"] == seeds[0]:
            place = (row["concept"], row["method"], row["attack"], row["budget"])
            over = "concepts" if row["concept"] == POOLED else "questions"
            cells.setdefault(place, {})[row["metric"]] = row_interval(row, over)
    return LabTable(model, cells, seeds)


def mean_over(found: Sequence[Interval]) -> Interval:
    """Mean of one number per concept: over concepts for three and more (at least as wide as their questions make it),
    else the mean of the values and of the bounds, which is over questions. Not measurable without any."""
    if not found:
        return Interval.unmeasured("not in this table", 0, "concepts")
    if len(found) < FEWEST:
        value, low, high = (sum(x[i] for x in found) / len(found) for i in range(3))
        return Interval(value, low, high, min(x.n for x in found), "questions")
    return mean_interval(
        [x if math.isfinite(x.high - x.low) else Interval(x.value, math.nan, math.nan, x.n) for x in found]
    )
