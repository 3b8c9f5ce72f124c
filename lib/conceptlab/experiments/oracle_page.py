"""The form matrix and the retrain oracle, read for notebook 06: arrays, intervals, and sentences made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core import Contents, Interval, contents, recovered_share, row_interval, table_path
from .fiction_table import TWIN
from .forms import FORMLESS, form_gap


@dataclass(frozen=True)
class FormTable:
    """Share of the margin that facts keep: method x trained form x asked form, of the first concept of a table."""

    table: Contents

    @classmethod
    def read(cls, model: str, path: Path | None = None) -> FormTable:
        """The table of one model in data/results, or at `path`, finished or not. Raises where there is none."""
        return cls(contents(path or table_path("forms", model)))

    @cached_property
    def _numbers(self) -> dict[tuple[str, ...], Interval]:
        rows = (r for r in self.table.rows if r["concept"] == self.concept)
        return {(r["method"], r["attack"], r["budget"], r["metric"]): row_interval(r, "facts") for r in rows}

    @cached_property
    def concept(self) -> str:
        return self.table.rows[0]["concept"]

    @property
    def concepts(self) -> list[str]:
        return list(dict.fromkeys(row["concept"] for row in self.table.rows))

    def basis(self) -> str:
        """What the numbers stand on."""
        return f"{self.concept.replace('_', ' ')} alone, so intervals are over its facts"

    @cached_property
    def rows(self) -> list[tuple[str, str]]:
        """(method, trained form) of everything that was possible."""
        found = [(m, form) for m, form, asked, metric in self._numbers if not asked and metric == "scale"]
        return list(dict.fromkeys(found))

    @property
    def asked(self) -> list[str]:
        return list(dict.fromkeys(asked for _, _, asked, _ in self._numbers if asked))

    @property
    def trained(self) -> dict[str, list[str]]:
        """Method -> its trained forms."""
        return {m: [form for name, form in self.rows if name == m] for m, _ in self.rows}

    def number(self, method: str, trained: str, asked: str, which: str = "shown") -> Interval | None:
        """Share of the margin kept, shown or held-out facts."""
        return self._numbers.get((method, trained, asked, f"kept_{which}"))

    @property
    def kept(self) -> dict[str, np.ndarray]:
        """Method -> `[trained, asked]`, nan where nothing could be measured."""
        found = {}
        for method, forms in self.trained.items():
            rows = [[self.number(method, form, asked) for asked in self.asked] for form in forms]
            found[method] = np.array([[x.value if x else np.nan for x in row] for row in rows])
        return found

    def _record(self, method: str, trained: str, asked: str) -> Mapping[str, list]:
        keys = [k for k in self.table.records if k[:4] == (self.concept, method, trained, asked)]
        return self.table.records[keys[0]] if keys else {}

    def margins(self, method: str, trained: str, which: str = "shown") -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Form -> margins of the same facts, shown or held-out ones, before and after; 0 before: not known."""
        rows = {f: self._record(method, trained, f).get(which, []) for f in self.asked}
        ids = sorted({row[0] for x in rows.values() for row in x})
        before, after = ({f: torch.zeros(len(ids)) for f in rows} for _ in range(2))
        for form, found in rows.items():
            for fact, old, new in found:
                before[form][ids.index(fact)], after[form][ids.index(fact)] = old, new
        return before, after

    def kept_of(self, method: str, trained: str, asked: str, facts: Sequence[int]) -> Interval:
        """Share of the margin that some of the shown facts keep in a form, by their places in `margins`."""
        before, after = (side[asked][list(facts)] for side in self.margins(method, trained))
        known = before > 0
        if not bool(known.any()):
            return Interval.unmeasured("none of these facts is known in this form", 0, "facts")
        return recovered_share(before[known], torch.zeros(int(known.sum())), after[known])

    def gaps(self) -> dict[tuple[str, str], Interval]:
        """(method, trained form) -> margin share lost in the trained form minus the mean of the other forms."""
        found = {}
        for method, trained in self.rows:
            if method not in FORMLESS:
                rows = {f: self._record(method, trained, f).get("shown", []) for f in self.asked}
                found[method, trained] = form_gap(rows, trained)
        return found

    def beyond(self) -> dict[tuple[str, str], Interval]:
        """(method, form) -> margin share lost in a form by training in it, minus by training in the other forms.

        In `gaps` a form that loses much under every training looks bound; here the asked form is the same on both
        sides. Of methods that were trained in at least two forms.
        """
        found = {}
        for method, trained in self.trained.items():
            for form in trained if len(trained) > 1 and method not in FORMLESS else ():
                rows = {f: self._record(method, f, form).get("shown", []) for f in trained}
                found[method, form] = form_gap(rows, form)
        return found

    def held_rows(self) -> list[tuple[str, ...]]:
        """Method, trained form, and what shown facts and facts never shown keep in that very form."""
        rows = []
        for m, f in self.rows:
            pair = (self.number(m, f, f, which) for which in ("shown", "held_out"))
            rows.append((m, f, *("\u2013" if x is None else str(x) for x in pair)))
        return rows

    def reading(self) -> str:
        """For how many trainings more is lost in the trained form: than in others, and than by training in others."""
        lines = [f"Margin share lost in the trained form minus ... ({self.basis()})"]
        for told, found in (
            ("... the mean of the other asked forms", self.gaps()),
            ("... what the same asked form loses by training in the others", self.beyond()),
        ):
            parts = [f"{m.replace('_', ' ')} as {form} {x}: {form_verdict(x)}" for (m, form), x in found.items()]
            lines += [f"{told}:", *(f"  {part}" for part in parts)] if parts else []
        return "\n".join(lines)


FREE = 0.15  # of the margin: a gap whose interval lies within this of 0 is none


def form_verdict(x: Interval) -> str:
    """Whether more is lost in the trained form. An interval that holds 0 and is wide decides nothing."""
    if not x.measurable or not x.bounded:
        return "cannot be told"
    if x.low > 0 or x.high < 0:
        return "bound to the form" if x.low > 0 else "the reverse"
    return f"not bound (within {FREE:g} of 0)" if -FREE < x.low and x.high < FREE else "cannot be told"


@dataclass(frozen=True)
class FictionTable:
    """Methods on invented facts, brought to the twin on what they were shown."""

    table: Contents

    @classmethod
    def read(cls, model: str, path: Path | None = None) -> FictionTable:
        """The table of one model in data/results, or at `path`, finished or not. Raises where there is none."""
        return cls(contents(path or table_path("fiction", model)))

    @cached_property
    def numbers(self) -> dict[tuple[str, str], Interval]:
        """(method, metric) -> number."""
        return {(r["method"], r["metric"]): row_interval(r, "questions") for r in self.table.rows}

    @property
    def methods(self) -> list[str]:
        """Those that could be brought near to the twin on the facts they were shown (a tenth of the gap at most)."""
        return [m for (m, metric), x in self.numbers.items() if metric == "left_shown" and abs(x.value) <= 0.1]

    @property
    def missed(self) -> list[str]:
        """Those that no strength brought there."""
        return [m for (m, metric), x in self.numbers.items() if metric == "left_shown" and abs(x.value) > 0.1]

    @property
    def panels(self) -> dict[str, dict[str, Interval]]:
        """Measure -> method -> number."""
        measures = {
            "removed of facts never shown (1: twin)": "removed_held_out", "neighbour loses (nats)": "lost_neighbour",
            "general loses (nats)": "lost_general",
        }  # fmt: skip
        return {
            label: {m: self.numbers[m, key] for m in self.methods if (m, key) in self.numbers}
            for label, key in measures.items()
        }

    @property
    def references(self) -> dict[str, float]:
        """Where a perfect erasure would lie."""
        return dict(zip(self.panels, (1.0, 0.0, 0.0), strict=True))

    def _number(self, method: str, metric: str) -> Interval | None:
        return self.numbers.get((method, metric))

    def accuracy_rows(self) -> list[tuple[str, ...]]:
        """Per method, the twin last: how far its edit was stretched, and how many facts are still answered rightly."""
        rows = []
        for method in (*self.methods, *self.missed):
            scale = self._number(method, "scale")
            found = [self._number(method, f"accuracy_{name}") for name in ("shown", "held_out")]
            cells = ("\u2013" if x is None else str(x) for x in found)
            rows.append((method, "\u2013" if scale is None else f"{scale.value:g} x", *cells))
        twin = [self._number(TWIN, f"accuracy_never_{name}") for name in ("shown", "held_out")]
        return [*rows, ("twin (never taught)", "", *("\u2013" if x is None else str(x) for x in twin))]

    def still_answered(self) -> list[str]:
        """Methods at the twin's log-probability whose shown facts are still answered surely more often than there."""
        twin = self._number(TWIN, "accuracy_never_shown")
        mine = {m: self._number(m, "accuracy_shown") for m in self.methods}
        return [m for m, x in mine.items() if x is not None and twin is not None and x.low > twin.high]

    def reading(self) -> str:
        """What was taught, who reached the twin and by what, and what that did to facts that were not shown."""
        lines = []
        if (gap := self._number(TWIN, "gap_held_out")) is not None:
            lines.append(f"Taught facts are {gap} nats likelier than in the twin (facts never shown to any method).")
        n = len(self.methods)
        missed = f"; not reached by: {', '.join(self.missed)}." if self.missed else "."
        lines.append(
            f"{n} method{' reaches' if n == 1 else 's reach'} the twin's log-probability on shown facts{missed}"
        )
        twin = self._number(TWIN, "accuracy_never_shown")
        for method in self.still_answered():
            mine, lost = self._number(method, "accuracy_shown"), self._number(method, "lost_general")
            told = f"{method.replace('_', ' ')} is there by log-probability alone: {mine} of the shown facts are still "
            told += f"answered rightly, {twin} in the twin"
            lines.append(told + (f"; general questions lost {lost} nats." if lost is not None else "."))
        removed, near = (
            [x for m in self.methods if (x := self._number(m, key)) is not None]
            for key in ("removed_held_out", "lost_neighbour")
        )
        less, more = sum(x.high < 1 for x in removed), sum(x.low > 1 for x in removed)
        lines.append(
            f"In log-probability of facts never shown {less} of {n} surely stay short of the twin and {more} surely "
            f"overshoot it; with {sum(x.low <= 0 <= x.high for x in near)} the "
            "neighbour's loss cannot be told from none."
        )
        return "\n".join(lines + ["Basis: one invented country; intervals are over its facts and over questions."])
