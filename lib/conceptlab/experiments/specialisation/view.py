"""The shipped table, as notebook 08 asks it: means over concepts, the score's floor, questions under foreign sets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from ...core import Contents, Interval, contents, mean_interval, row_interval, table_path
from .bench import MAIN, SpecialisationConfig
from .teaching import ARMS

ALL = "all"  # the concept of rows that are means over concepts
TAUGHT_METRICS = ("steps", "right", "wrong", "certain_untaught", "drift", "own_cost", "other_cost")


@dataclass(frozen=True)
class MaskingTable:
    """Rows and records of one model; `share` of the vectors was masked."""

    kept: Contents | None

    @property
    def name(self) -> str:
        """Of the model; "" where there is no table."""
        return self.kept.note["model"] if self.kept else ""

    @property
    def n_layers(self) -> int:
        """Of the model; 0 where nothing has been masked."""
        records = self.kept.records.values() if self.kept else ()
        return next((len(r["layers"]) for r in records if isinstance(r, dict) and "layers" in r), 0)

    @cached_property
    def shares(self) -> list[str]:
        """Shares that were masked in more than two concepts, from small to large."""
        return sorted({k[2] for k in self._rows if k[:2] == ("own", "") and k[3:] == ("own_cost", ALL)}, key=float)

    def curves(self) -> dict[str, list[tuple[float, float, float, float]]]:
        """Cost against the share masked, as `plot_costs` takes it: the concept and the others, and the controls."""
        lines = {"own": ("own", "own_cost"), "equal": ("equal", "own_cost"), "random": ("random", "own_cost"),
                 "others": ("own", "other_cost")}  # fmt: skip
        found = {
            line: [(float(s), *x[:3]) for s in self.shares if (x := self.mean(method, metric, share=s))]
            for line, (method, metric) in lines.items()
        }
        return {line: points for line, points in found.items() if points}

    @cached_property
    def _rows(self) -> dict[tuple[str, ...], Interval]:
        keys = ("method", "attack", "budget", "metric", "concept")
        rows = self.kept.rows if self.kept else []
        return {tuple(r[k] for k in keys): row_interval(r, "concepts" if r["concept"] == ALL else "") for r in rows}

    def mean(self, method: str, metric: str, kind: str = "", share: str = f"{MAIN:g}") -> Interval | None:
        """Mean over concepts; None where it has not been measured."""
        return self._rows.get((method, kind, share, metric, ALL))

    def each(self, method: str, metric: str, kind: str = "", share: str = f"{MAIN:g}") -> dict[str, Interval]:
        """One number per concept."""
        wanted = (method, kind, share, metric)
        return {key[4]: x for key, x in self._rows.items() if key[:4] == wanted and key[4] != ALL}

    def taught_rows(self) -> list[tuple[str, ...]]:
        """Arm by arm what teaching the same facts to the same loss came to, and the concept's vectors minus each arm.

        Per learning rate: the concepts in which the loss was reached (only these count), then means over them of
        `TAUGHT_METRICS`; the differences are paired over concepts, with their interval.
        """
        keys = {(key[0], key[2]) for key in self._rows if key[1] == "teaching" and key[4] != ALL}
        order = sorted(keys, key=lambda key: (-float(key[1]), ARMS.index(key[0])))
        rows = []
        for arm, rate in order:
            kept = self._taught(arm, rate)
            means = (mean_interval([x[m] for x in kept.values()]) if kept else None for m in TAUGHT_METRICS)
            rows.append((arm, rate, str(len(kept)), *("-" if x is None else f"{x.value:.2f}" for x in means)))
        for arm, rate in order:
            mine, theirs = self._taught("own", rate), self._taught(arm, rate)
            both = [c for c in mine if c in theirs]
            if arm != "own" and len(both) > 2:
                gaps = [mean_interval([mine[c][m] - theirs[c][m] for c in both]) for m in TAUGHT_METRICS]
                rows.append((f"own minus {arm}", rate, str(len(both)), *map(str, gaps)))
        return rows

    def _taught(self, arm: str, rate: str) -> dict[str, dict[str, float]]:
        """Concept -> metrics, where the loss was reached."""
        found = {m: self.each(arm, m, "teaching", rate) for m in (*TAUGHT_METRICS, "reached")}
        return {
            c: {m: found[m][c].value for m in TAUGHT_METRICS} for c, x in found["reached"].items() if x.value == 1.0
        }

    def score_parts(self, method: str) -> dict[str, Interval]:
        """The score after masking, what it would be if all questions had suffered alike, and the signed difference.

        Means over concepts. Before the masking all questions were answered rightly, so nothing is divided.
        """
        own, others = self.each(method, "own_right"), self.each(method, "other_right")
        both = {c: (own[c], others[c]) for c in own if c in others}
        if len(both) < 3:
            return {}
        return {
            "score": mean_interval([self.each(method, "score")[c].value for c in both]),
            "floor": mean_interval([_floor(a, b) for a, b in both.values()]),
            "signed": mean_interval([b.value - a.value for a, b in both.values()]),
        }

    def same_questions(self, method: str) -> Interval | None:
        """What a question loses under its own concept's set, minus its mean loss under the sets of other concepts.

        Over the questions that were asked of both kinds: with them, no difference in difficulty can make a gap.
        """
        found: dict[str, tuple[list[float], list[float]]] = {}
        for name, (ids, n_own) in self._asked().items():
            record = self.kept.records.get((name, method, "", f"{MAIN:g}", "0")) if self.kept else None
            if record and len(record["own"]) == n_own and len(ids) == n_own + len(record["others"]):
                for i, (q, cost) in enumerate(zip(ids, [*record["own"], *record["others"]], strict=True)):
                    found.setdefault(q, ([], []))[int(i >= n_own)].append(cost)
        pairs = [(own, far) for own, far in found.values() if own and far]
        if len(pairs) < 3:
            return None
        return mean_interval([math.fsum(own) / len(own) - math.fsum(far) / len(far) for own, far in pairs], "questions")

    def _asked(self) -> dict[str, tuple[list[str], int]]:
        """Per concept: the ids of the questions that its cells asked, in their order, and how many are its own."""
        config, records = SpecialisationConfig(), self.kept.records if self.kept else {}
        known = {key[0]: list(ids) for key, ids in sorted(records.items()) if key[1] == "known"}
        found = {}
        for name, ids in known.items():
            queues = [other for concept, other in known.items() if concept != name]
            dealt = [q for i in range(config.n_others) for queue in queues for q in queue[i : i + 1]]
            own = ids[: config.n_own]
            found[name] = ([*own, *dealt[: config.n_others]], len(own))
        return found


def masking_table(model: str) -> MaskingTable:
    """What data/results holds of this experiment for a model; empty where nothing has been measured."""
    path = table_path("specialisation", model)
    return MaskingTable(contents(path) if path.exists() else None)


def _floor(own: Interval, others: Interval) -> float:
    """Mean |difference| of two shares over as many questions, if each were answered rightly equally often."""
    n, m = own.n, others.n
    p = (own.value * n + others.value * m) / (n + m)

    def chances(k: int) -> list[float]:
        return [math.comb(k, i) * p**i * (1 - p) ** (k - i) for i in range(k + 1)]

    far = chances(m)
    return math.fsum(a * b * abs(j / m - i / n) for i, a in enumerate(chances(n)) for j, b in enumerate(far))
