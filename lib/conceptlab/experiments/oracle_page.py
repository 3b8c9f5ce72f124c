"""The form matrix and the retrain oracle, read for notebook 06: arrays, intervals, and sentences made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core import Contents, Interval, contents, row_interval, table_path
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

    def margins(self, method: str, trained: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Form -> margins of the same facts (shown ones, then held-out ones) before and after; 0 before: not known."""
        rows = {f: [row for part in self._record(method, trained, f).values() for row in part] for f in self.asked}
        ids = sorted({row[0] for x in rows.values() for row in x})
        before, after = ({f: torch.zeros(len(ids)) for f in rows} for _ in range(2))
        for form, found in rows.items():
            for fact, old, new in found:
                before[form][ids.index(fact)], after[form][ids.index(fact)] = old, new
        return before, after

    def gaps(self) -> dict[tuple[str, str], Interval]:
        """(method, trained form) -> margin share lost in the trained form minus the mean of the other forms."""
        found = {}
        for method, trained in self.rows:
            if method not in FORMLESS:
                rows = {f: self._record(method, trained, f).get("shown", []) for f in self.asked}
                found[method, trained] = form_gap(rows, trained)
        return found

    def reading(self) -> str:
        """For how many trainings more is lost in the trained form than in the others."""
        gaps, lines = self.gaps(), []
        for method in dict.fromkeys(m for m, _ in gaps):
            own = {form: x for (m, form), x in gaps.items() if m == method}
            sure = [form for form, x in own.items() if x.low > 0]
            told = ", ".join(f"{form} {x}" for form, x in own.items())
            lines.append(f"{method.replace('_', ' ')}: {told}; surely form-bound in {len(sure)} of {len(own)} forms.")
        head = f"Margin lost in the trained form minus the mean of the others ({self.basis()})."
        return "\n".join([head, *lines])


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

    def reading(self) -> str:
        """What was taught, who reached the twin, and what that did to facts that were not shown."""
        gap = self.numbers.get((TWIN, "gap_held_out"))
        removed = {
            m: self.numbers[m, "removed_held_out"] for m in self.methods if (m, "removed_held_out") in self.numbers
        }
        near = {m: self.numbers[m, "lost_neighbour"] for m in self.methods if (m, "lost_neighbour") in self.numbers}
        less = [m for m, x in removed.items() if x.high < 1]
        more = [m for m, x in removed.items() if x.low > 1]
        free = [m for m, x in near.items() if x.low <= 0 <= x.high]
        lines = (
            [f"Taught facts are {gap} nats likelier than in the twin (facts never shown to any method)."] if gap else []
        )
        lines.append(f"{len(self.methods)} methods reach the twin on shown facts" + (
            f"; not reached by: {', '.join(self.missed)}." if self.missed else "."))  # fmt: skip
        lines.append(
            f"On facts never shown, {len(less)} surely stop short of the twin and {len(more)} surely overshoot it; "
            f"with {len(free)} the neighbour's loss cannot be told from none."
        )
        return "\n".join(lines + ["Basis: one invented country; intervals are over its facts and over questions."])
