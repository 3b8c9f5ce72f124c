"""The tables and sentences of notebook 06, made from a lab table as it is.

Every sentence is computed, so that it stays true when methods and concepts are added: it names its basis, and says so
where a claim is not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core import Interval
from .lab_view import SPEAKERS, LabView, mean_of, of_kind, tally

EMPTY = "\u2013"  # a cell that has not been computed
At = Mapping[str, Mapping[str, Interval]]  # `LabView.at`


@dataclass(frozen=True)
class Pool:
    """A headline and its control."""

    label: str
    value: Interval
    control: float | None
    control_label: str


def _shown(x: Interval | None) -> str:
    return EMPTY if x is None or not x.measurable else str(x)


def _kind(view: LabView, method: str) -> str:
    return view.kinds.get(method, "")


def curve_reading(view: LabView) -> str:
    """Nats that the neighbour loses per nat of the target, for every speaker at its own strength."""
    parts = []
    for method in view.speakers().values():
        points = view.points(method, "neighbour")
        own = [pair for pair in points if pair[0].value > 0.1]
        if own:
            target, near = own[-1]
            parts.append(f"{method.replace('_', ' ')} {near.value / target.value:.2f}")
    if not parts:
        return "The table holds no strength curves yet, so there is nothing to draw."
    return f"Nats the neighbour loses per nat of the target, at the strongest setting: {', '.join(parts)}."


def matched_rows(view: LabView, at: At) -> list[tuple[str, ...]]:
    """All methods at equal direct loss, the gentlest to the neighbour first; controls last."""

    def key(method: str) -> tuple[bool, float]:
        x = at[method].get("lost_neighbour")
        return _kind(view, method) == "control", float("inf") if x is None else x.value

    columns = ("lost_neighbour", "lost_neighbour_minus_pisces", "lost_unseen", "lost_general", "recovered_relearning")
    return [
        (m, _kind(view, m), f"{at[m]['n_concepts'].value:.0f}", *(_shown(at[m].get(c)) for c in columns))
        for m in sorted(at, key=key)
    ]


def differences(view: LabView, at: At, metric: str, kind: str, against: str = "pisces") -> dict[str, Interval]:
    """Method of a kind -> what it costs at equal direct loss, minus what another method costs, paired."""
    found = {m: at[m].get(f"{metric}_minus_{against}") for m in at if _kind(view, m) == kind}
    return {m: x for m, x in found.items() if x is not None}


def tallies(view: LabView, at: At) -> list[str]:
    """Fine-tuning, localised methods and controls against PISCES at equal loss, set by set."""
    lines = []
    for name in ("neighbour", "unseen", "general"):
        for kind in ("fine-tuning", "localised", "control"):
            found = differences(view, at, f"lost_{name}", kind)
            label = {"control": "controls"}.get(kind, f"{kind} methods")
            lines.append(f"{name}: " + tally(found, label, "it loses surely more than under PISCES", "surely less"))
    return lines


FOLDED = {"combination": "dictionary", "vectors": "localised"}  # kinds that a figure draws as one
RESIDUE = {  # metric -> which vectors it compares
    "residue_cosine": "the 20 vectors that promote the words most",
    "residue_rows_cosine": "the rows that hold the features found",
}


def residue_points(view: LabView, metric: str = "residue_cosine") -> dict[str, list[tuple[str, float, float]]]:
    """Kind -> (method, efficacy, cosine of some vectors before and after), means over concepts."""
    found: dict[str, list[tuple[str, float, float]]] = {}
    for method, kind in view.kinds.items():
        efficacy, cosine = (view.over(key, method) for key in ("efficacy_known", metric))
        if efficacy.measurable and cosine.measurable:
            found.setdefault(FOLDED.get(kind, kind), []).append((method, efficacy.value, cosine.value))
    return found


def residue_reading(view: LabView, least: float = 0.2, cosine: float = 0.9) -> str:
    """How many fine-tuning methods changed the answers and left the vectors where they were, and who moved any."""
    rows = residue_points(view).get("fine-tuning", [])
    if not rows:
        return "No fine-tuning method is scored in the table yet."
    took = [row for row in rows if row[1] >= least]
    stayed = [row for row in took if row[2] > cosine]
    told = (
        f"Of {len(rows)} fine-tuning methods {len(took)} have an efficacy of at least {least:g} at the strength chosen "
    )
    told += f"on dev; {len(stayed)} of these leave the 20 vectors at a mean cosine above {cosine:g}"
    told += f" (lowest {min(row[2] for row in stayed):.4f})." if stayed else "."
    for metric, what in RESIDUE.items():
        moved = [(m, c) for x in residue_points(view, metric).values() for m, _, c in x if c <= cosine]
        names = ", ".join(f"{m.replace('_', ' ')} {c:.2f}" for m, c in moved[:6]) or "nobody"
        told += f" Below {cosine:g} on {what}: {names}."
    return f"{told} Basis: {view.basis()}."


def robustness_rows(view: LabView, at: At) -> list[tuple[str, ...]]:
    """What comes back under two attacks, and what is left of known facts asked as usual and as a cloze.

    Relearning at equal loss, in nats, where strength curves met it; else the share of what was lost, at own strength.
    """
    relearning, rounding, rows = view.attacked("relearning"), view.attacked("quantisation"), []
    for method, kind in view.kinds.items():
        back = at.get(method, {}).get("recovered_relearning") or relearning.get(method)
        asked = (mean_of(list(view.value(method, key).values())) for key in ("left_target_known", "left_cloze"))
        found = (back, rounding.get(method), *asked)
        if any(x is not None and x.measurable for x in found):
            rows.append((method, kind, *map(_shown, found)))
    return rows


def relearning_tally(view: LabView, at: At) -> str:
    """How much more comes back after fine-tuning than after PISCES, at equal direct loss."""
    found = differences(view, at, "recovered_relearning", "fine-tuning")
    if not found:
        return "relearning: at equal loss it is not computed yet; the column has shares at the methods' own strengths."
    return "relearning: " + tally(found, "fine-tuning methods", "surely more comes back than to PISCES", "surely less")


def rounding_reading(view: LabView) -> str:
    """What rounding gives back to fine-tuning, beside PISCES."""
    rounding = view.attacked("quantisation")
    tuned = {m: x for m, x in rounding.items() if m in of_kind(view, ["fine-tuning"])}
    if not tuned:
        return "rounding: no fine-tuning method has met it in the table yet; the live edit above has."
    more = [m for m, x in tuned.items() if x.low > 0.5]
    told = ", ".join(f"{m.replace('_', ' ')} {x}" for m, x in tuned.items())
    mine = f"; PISCES {rounding['pisces']}" if "pisces" in rounding else ""
    return f"rounding: {told}{mine}. More than half comes back surely with {len(more)} of {len(tuned)}."


def pool_for(view: LabView, at: At, loss: float) -> Pool:
    """The notebook's number: what fine-tuning costs the neighbour beyond PISCES, where both took the same.

    The method that was named beforehand speaks for fine-tuning (SPEAKERS), so that no number chose it; the control is a
    random change of the weights at the same loss, or the control that comes nearest to PISCES.
    """
    found = differences(view, at, "lost_neighbour", "fine-tuning")
    controls = differences(view, at, "lost_neighbour", "control")
    random = {m: x for m, x in controls.items() if m.startswith("random")} or controls
    least = min(random, key=lambda m: random[m].value, default=None)
    control, told = (random[least].value, f"{least.replace('_', ' ')} minus PISCES") if least else (None, "")
    name = next((m for m in (*SPEAKERS["fine-tuning"], *found) if m in found), None)
    if name is None:
        none = mean_of(list(view.value("pisces", "specificity").values()))
        return Pool("specificity of PISCES; no curve of fine-tuning is in the table yet", none, None, "")
    n = int(at[name]["n_concepts"].value)
    label = f"nats the neighbour loses more under {name.replace('_', ' ')} than under PISCES where the target lost "
    label += f"{loss:g} ({n} concept{'s' if n != 1 else ''})"
    return Pool(label, found[name], control, told)
