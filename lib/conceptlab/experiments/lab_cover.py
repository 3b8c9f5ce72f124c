"""What the lab's table holds of the registry, and how hard each method was tuned: for the beginning of notebook 06.

A comparison is as good as its weakest row. So the page says which registered methods have no row, on how many concepts
and seeds the others stand, how many settings were tried for them on dev, and where the chosen one stands at the end of
its grid, so that a better one may lie beyond.
"""

from __future__ import annotations

import math
from collections import Counter

from ..erasure import methods
from .curves import TARGET
from .lab import FIT
from .lab_page import EMPTY, listed, name_of, shown
from .lab_table import FEWEST
from .lab_view import LabView

SHORTEST = 3  # values of a knob whose ends say something: of two, every choice is an end
CHOICES = ("place",)  # knobs whose values are alternatives and not strengths


def registered() -> list[str]:
    """The registered methods that are no controls."""
    return [name for name, method in methods().items() if method.kind != "control"]


def missing(view: LabView) -> list[str]:
    """Rivals that have no scores in the table."""
    return [name for name in registered() if name not in view.kinds]


def coverage(view: LabView) -> str:
    """How many of the registered rivals are scored, drawn as a curve and attacked, and which are not scored."""
    rows, names = missing(view), registered()
    there = [m for m in names if m not in rows]
    drawn = [m for m in there if m in view.curves]
    met = [m for m in there if view.met(m, "relearning")]
    told = f"{len(there)} of {len(names)} registered methods (controls apart) have a row, {len(drawn)} a strength curve"
    told += f", {len(met)} were attacked ({', '.join(map(name_of, met)) or 'none'})"
    several, seeds = [m for m in there if len(view.value(m, "efficacy")) >= FEWEST], len(view.numbers.seeds)
    told += f"; {len(several)} of the rows stand on {FEWEST} concepts or more, all on {seeds} seed"
    told += "s." if seeds != 1 else "."
    return told + (f" Without a row: {', '.join(map(name_of, rows))}." if rows else "")


def coverage_rows(view: LabView) -> list[tuple[str, ...]]:
    """Rival, kind, cost of a fit, and on how many concepts it is scored, drawn and attacked."""
    rows = []
    for name in [m for m in registered() if m in view.kinds]:
        counts = [len(view.value(name, "efficacy")), len(view.curves.get(name, {})), len(view.met(name, "relearning"))]
        rows.append((name, view.kinds[name], methods()[name].cost or EMPTY, *(str(n) if n else EMPTY for n in counts)))
    return rows


# ---- tuning ---------------------------------------------------------------------------------------------
def tried(view: LabView) -> dict[str, Counter[int]]:
    """Rival -> settings tried on dev -> on how many concepts."""
    found = {m: Counter(int(x.value) for x in view.value(m, "tried", FIT).values()) for m in registered()}
    return {m: counts for m, counts in found.items() if counts}


def at_the_edge(view: LabView) -> dict[str, list[tuple[str, str, float]]]:
    """Rival -> (concept, knob, value) where the choice on dev stands at the strong end of a knob's grid.

    Of knobs with three values or more, on concepts where the whole grid of the registry was tried.
    """
    found: dict[str, list[tuple[str, str, float]]] = {}
    for name in [m for m in registered() if m in view.kinds]:
        knobs, sizes = methods()[name].knobs, view.value(name, "tried", FIT)
        full = math.prod(len(values) for values in knobs.values())
        for knob, values in knobs.items():
            if len(values) < SHORTEST or knob in CHOICES:
                continue
            for concept, x in view.value(name, f"setting_{knob}", FIT).items():
                if concept in sizes and sizes[concept].value == full and abs(x.value - values[-1]) < 1e-4:
                    found.setdefault(name, []).append((concept, knob, x.value))
    return found


def tuning_reading(view: LabView) -> str:
    """How unequal the search on dev was: settings tried, scales of a single training, choices at the end of a grid."""
    counts = tried(view)
    few = {m: c for m, c in counts.items() if set(c) != {max(max(x) for x in counts.values())}}
    most = max((max(c) for c in counts.values()), default=0)
    told = f"Settings tried on dev: {most} for {len(counts) - len(few)} of {len(counts)} methods on every concept"
    told += "; other numbers: " + "; ".join(f"{name_of(m)} {_counted(c)}" for m, c in few.items()) if few else ""
    single = [m for m in counts if tuple(methods()[m].knobs) == ("scale",)]
    told += f". All settings are scales of one training: {', '.join(map(name_of, single))}" if single else ""
    edge: dict[str, list[str]] = {}
    for m, places in at_the_edge(view).items():
        for label in dict.fromkeys(f"{knob} {value:g}" for _, knob, value in places):
            concepts = ", ".join(name_of(c) for c, knob, value in places if f"{knob} {value:g}" == label)
            edge.setdefault(label, []).append(f"{name_of(m)} ({concepts})")
    ends = "; ".join(f"{label} by {', '.join(names)}" for label, names in edge.items())
    told += f". Chosen at the strong end of its grid, beyond which nothing was tried: {ends}" if ends else ""
    return told + "."


def _counted(counts: Counter[int]) -> str:
    parts = [f"{n} on {times} concept{'s' if times != 1 else ''}" for n, times in sorted(counts.items())]
    return " and ".join(parts)


# ---- beside the axes --------------------------------------------------------------------------------------
BESIDE = {  # metric -> heading
    "efficacy_known": "taken", "coherence_known": "coherence", "depth": "depth",
    "removed_unasked": "share of the gap taken", "below_unasked": "below unasked (nats)",
}  # fmt: skip


def beside_rows(view: LabView) -> list[tuple[str, ...]]:
    """Every scored method at its own strength: efficacy, fluency, depth, and overshoot; controls last."""
    rows = []
    for name in sorted(view.kinds, key=lambda m: view.kinds[m] == "control"):
        found = [view.over(metric, name) for metric in BESIDE]
        if any(x.measurable for x in found[1:]):
            rows.append((name, view.kinds[name], str(len(view.value(name, "efficacy"))), *map(shown, found)))
    return rows


def overshoot_reading(view: LabView) -> str:
    """With which methods right answers lie surely below their weight unasked, and with which surely above."""
    found = {m: view.over("below_unasked", m) for m in registered() if m in view.kinds}
    found = {m: x for m, x in found.items() if x.measurable}
    if not found:
        return "How far right answers fall against their weight unasked is not in the table yet."
    below, above = [m for m, x in found.items() if x.low > 0], [m for m, x in found.items() if x.high < 0]
    told = f"Right answers surely fall below their weight unasked (too much is taken) {listed(below)} of {len(found)} "
    return told + f"methods, surely stay above it {listed(above)}."


def unreached(view: LabView, loss: float) -> str:
    """Methods whose curve never takes the matched loss, on which concept, and how much it takes at most: no table at
    equal loss has them there."""
    found = []
    for method, curves in view.curves.items():
        for concept, curve in curves.items():
            top = max(sum(p.lost[TARGET]) / len(p.lost[TARGET]) for p in curve)
            if top < loss:
                found.append(f"{name_of(method)} ({name_of(concept)}: {top:.3g})")
    told = f"At no measured strength does the target lose {loss:g}, so not in the tables at equal loss: "
    return told + (", ".join(found) if found else "none") + "."
