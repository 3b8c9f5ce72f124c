"""The tables and sentences of notebook 06 on methods at equal loss, made from a lab table as it is.

Every sentence is computed, so that it stays true when methods and concepts are added: it names its basis, and says so
where a claim is not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..core import Interval
from .curves import TARGET
from .lab_table import mean_over
from .lab_view import SPEAKERS, LabView

EMPTY = "\u2013"  # a cell that has not been computed
At = Mapping[str, Mapping[str, Interval]]  # `LabView.at`


@dataclass(frozen=True)
class Pool:
    """A headline and its control."""

    label: str
    value: Interval
    control: float | None
    control_label: str


def shown(x: Interval | None) -> str:
    """A number for a table; a dash where there is none."""
    return EMPTY if x is None or not x.measurable else str(x)


def _kind(view: LabView, method: str) -> str:
    return view.kinds.get(method, "")


def name_of(method: str) -> str:
    """A method as it is written in a sentence."""
    return method.replace("_", " ")


def curve_reading(view: LabView, at: At, loss: float) -> str:
    """Nats that the neighbour loses per nat of the target, for every speaker where the target has lost `loss`."""
    speakers = view.speakers().values()
    if not speakers:
        return "The table holds no strength curves yet, so there is nothing to draw."
    parts = [f"{name_of(m)} {at[m]['lost_neighbour'].value / loss:.2f}" for m in speakers if m in at]
    weak = [name_of(m) for m in speakers if m not in at]
    told = f"Nats the neighbour loses per nat of the target, where the target has lost {loss:g}: {', '.join(parts)}"
    return told + (f"; no measured strength takes so much: {', '.join(weak)}." if weak else ".")


def bridged(view: LabView, loss: float, most: float = 1.5) -> str:
    """Methods for which no edit near the matched loss was measured, and between which losses they are matched."""
    found = []
    for method, curves in view.curves.items():
        for concept, curve in curves.items():
            tops = [0.0, *(sum(p.lost[TARGET]) / len(p.lost[TARGET]) for p in sorted(curve, key=lambda p: p.scale))]
            ends = next(((low, high) for low, high in pairwise(tops) if low <= loss <= high), None)
            if ends is not None and ends[1] - ends[0] > most:
                where = f", {name_of(concept)}" if len(view.concepts) > 1 else ""
                found.append(f"{name_of(method)} ({ends[0]:.1f} to {ends[1]:.1f}{where})")
    told = f"Matched on a straight line across more than {most:g} nats, so that no such edit was measured: "
    return told + (", ".join(found) if found else "none") + "."


def matched_rows(view: LabView, at: At) -> list[tuple[str, ...]]:
    """All methods at equal direct loss, the gentlest to the unseen near domain first; controls last."""
    return _table(view, at, [f"lost_{name}" for name in AT_LOSS])


AT_LOSS = {  # numbers at equal loss -> heading
    "neighbour": "neighbour", "neighbour_minus_pisces": "neighbour: minus PISCES", "unseen": "unseen near",
    "unseen_minus_pisces": "unseen near: minus PISCES", "general": "general",
}  # fmt: skip


def _table(view: LabView, at: At, columns: Sequence[str]) -> list[tuple[str, ...]]:
    order = next((c for c in columns if "unseen" in c and any(c in row for row in at.values())), columns[0])

    def key(method: str) -> tuple[bool, float]:
        x = at[method].get(order)
        return _kind(view, method) == "control", float("inf") if x is None else x.value

    return [
        (m, _kind(view, m), f"{at[m]['n_concepts'].value:.0f}", *(shown(at[m].get(c)) for c in columns))
        for m in sorted(at, key=key)
    ]


def per_concept(view: LabView, loss: float) -> list[tuple[str, ...]]:
    """Concept by concept what the others lose at equal direct loss, of methods that several have; see AT_LOSS."""
    rows, several = [], {m for m, curves in view.curves.items() if len(curves) > 1}
    for concept in view.concepts:
        at = view.only(concept).at(loss)
        columns = [f"lost_{name}" for name in AT_LOSS]
        rows += [(name_of(concept), row[0], *row[3:]) for row in _table(view, at, columns) if row[0] in several]
    return rows


def margin_table(view: LabView, at: At, loss: float) -> tuple[str, list[str], list[tuple[str, ...]]]:
    """A caption, columns and rows: the margin that each set has lost, method by method.

    At equal direct loss where strength curves kept margins; else at the strength chosen on dev, with the
    log-probability lost there by the target and the unseen near domain.
    """
    kept = {m: row for m, row in at.items() if "margin_lost_target" in row}
    if kept:
        told = f"Margin lost, in nats, where the target has lost {loss:g} nats of log-probability ({view.basis()})"
        return (
            told,
            ["target", *AT_LOSS.values()],
            _table(view, kept, [f"margin_lost_{c}" for c in ("target", *AT_LOSS)]),
        )
    columns = {"margin_target": "target", "margin_neighbour": "neighbour", "margin_unseen": "unseen near",
               "margin_general": "general", "gold_target": "target: log p",
               "gold_unseen": "unseen near: log p"}  # fmt: skip
    rows = []
    for method, kind in view.kinds.items():
        found = [view.over(metric, method) for metric in columns]
        if found[0].measurable:
            lost = [Interval(-x.value, -x.high, -x.low, x.n) if x.measurable else None for x in found]
            rows.append((method, kind, f"{len(view.value(method, 'margin_target'))}", *map(shown, lost)))
    return f"Margin lost, in nats, at the strength chosen on dev ({view.basis()})", [*columns.values()], rows


def differences(view: LabView, at: At, metric: str, kind: str, against: str = "pisces") -> dict[str, Interval]:
    """Method of a kind -> what it costs at equal direct loss, minus what another method costs, paired."""
    found = {m: at[m].get(f"{metric}_minus_{against}") for m in at if _kind(view, m) == kind}
    return {m: x for m, x in found.items() if x is not None}


def tally_rows(view: LabView, at: At) -> list[tuple[str, ...]]:
    """Kind by kind and set by set: with how many methods it loses surely more than under PISCES, surely less."""
    rows = []
    for kind in [k for k in dict.fromkeys(view.kinds.values()) if k != "dictionary"]:
        cells = [_counts(differences(view, at, metric, kind)) for metric in TALLIED]
        if any(cell != EMPTY for cell in cells):
            rows.append((kind, *cells))
    return rows


TALLIED = {  # metric at equal loss -> heading
    "lost_neighbour": "neighbour", "lost_unseen": "unseen near", "lost_general": "general",
    "margin_lost_neighbour": "neighbour, margin", "margin_lost_unseen": "unseen near, margin",
}  # fmt: skip


def _counts(found: Mapping[str, Interval]) -> str:
    if not found:
        return EMPTY
    more, less = sum(x.low > 0 for x in found.values()), sum(x.high < 0 for x in found.values())
    return f"{more} more, {less} less, {len(found) - more - less} open"


def unseen_reading(view: LabView, at: At, loss: float, metric: str = "lost") -> str:
    """What a near domain that no choice has seen loses under PISCES, and which methods take less from it."""
    mine, what = at.get("pisces", {}).get(f"{metric}_unseen"), "margin" if metric == "margin_lost" else "nats"
    found = {m: x for m, row in at.items() if (x := row.get(f"{metric}_unseen_minus_pisces")) is not None}
    rest = {m: x for m, x in found.items() if _kind(view, m) != "control"}
    if mine is None or not rest:
        return "The unseen near domain under PISCES is not computed yet."
    less, surely = [m for m, x in rest.items() if x.value < 0], [m for m, x in rest.items() if x.high < 0]
    more = [m for m, x in rest.items() if x.low > 0]
    told = f"On a near domain that no choice has seen PISCES loses {mine} ({what}) where its target has lost {loss:g}. "
    told += f"Of {len(rest)} other methods {len(less)} lose less there, surely so {listed(surely)}; surely more "
    controls = ", ".join(f"{name_of(m)} minus PISCES {x}" for m, x in found.items() if m not in rest) or "none"
    return told + f"{listed(more)}. Controls: {controls}."


def listed(names: Sequence[str]) -> str:
    """How many methods, and which."""
    return f"with {len(names)} ({', '.join(map(name_of, names))})" if names else "with none"


# ---- the notebook's number --------------------------------------------------------------------------------
def pool_for(view: LabView, at: At, loss: float) -> Pool:
    """The notebook's number: what fine-tuning costs a near domain beyond PISCES, where both took the same.

    The domain is the one that no choice has seen, where the table has it: PISCES' features were chosen to spare the
    neighbour. The method that was named beforehand speaks for fine-tuning (SPEAKERS), so that
    no number chose it; the control is a random change of the weights at the same loss, or the control that comes
    nearest to PISCES.
    """
    unseen, near = (differences(view, at, f"lost_{name}", "fine-tuning") for name in ("unseen", "neighbour"))
    found, where = (unseen, "unseen") if unseen else (near, "neighbour")
    name = next((m for m in (*SPEAKERS["fine-tuning"], *found) if m in found), None)
    if name is None:
        none = mean_over(list(view.value("pisces", "specificity").values()))
        return Pool("specificity of PISCES; no curve of fine-tuning is in the table yet", none, None, "")
    controls = differences(view, at, f"lost_{where}", "control")
    random = {m: x for m, x in controls.items() if m.startswith("random")} or controls
    least = min(random, key=lambda m: abs(random[m].value), default=None)
    control, told = (random[least].value, f"{name_of(least)} minus PISCES") if least else (None, "")
    n, value = int(at[name]["n_concepts"].value), found[name]
    domain = "a near domain unseen by any choice" if where == "unseen" else "the neighbour"
    over = f"{n} concept{'s' if n != 1 else ''}"
    label = f"extra loss of {domain}, {name_of(name)} minus PISCES, where the target lost {loss:g} ({over})"
    label += "; the interval holds zero" if _holds(value, 0.0) else ""
    return Pool(label, value, control, told)


def _holds(x: Interval, value: float) -> bool:
    return not x.bounded or x.low <= value <= x.high
