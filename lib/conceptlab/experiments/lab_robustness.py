"""The tables and sentences of notebook 06 on what is left in the weights and on what comes back under attack."""

from __future__ import annotations

import math

from .lab import FIT
from .lab_page import EMPTY, At, differences, listed, name_of, shown
from .lab_table import mean_over
from .lab_view import LabView, of_kind, tally
from .pooled import DIRECT

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
    """How many fine-tuning methods changed the answers and left the vectors where they were, beside noise of that size,
    and who moved any."""
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
    sizes = [view.over("relative_norm", row[0], FIT) for row in stayed]
    if sizes and all(x.measurable for x in sizes):
        size = max(x.value for x in sizes)
        told += f" Noise of the same size (at most {size:.4f} of the weights' norm) would leave {_of_noise(size):.4f}."
    for metric, what in RESIDUE.items():
        moved = [(m, c) for x in residue_points(view, metric).values() for m, _, c in x if c <= cosine]
        names = ", ".join(f"{name_of(m)} {c:.2f}" for m, c in moved[:6]) or "nobody"
        told += f" Below {cosine:g} on {what}: {names}."
    return f"{told} Basis: {view.basis()}."


def _of_noise(size: float) -> float:
    """Cosine of a vector before and after noise of `size` of its norm is added, which is at a right angle to it."""
    return 1 / math.sqrt(1 + size * size)


# ---- robustness -------------------------------------------------------------------------------------------
ROUNDED = {  # strength of the attack "quantisation" -> heading
    "4-bit": "gap, both in 4 bits", "gguf": "gap, both in the file's format",
}  # fmt: skip


def attack_rows(view: LabView, at: At) -> list[tuple[str, ...]]:
    """What comes back by relearning, and the gap of margins to the original: as erased, and when both are rounded.

    Relearning at equal loss, in nats, where strength curves met it; else the share of what was lost, at own strength.
    """
    relearning = view.attacked("relearning")
    gaps = [view.attacked(DIRECT, "margin", "lost")]
    gaps += [view.attacked("quantisation", strength, "below_ceiling") for strength in ROUNDED]
    rows = []
    for method, kind in view.kinds.items():
        back = at.get(method, {}).get("recovered_relearning") or relearning.get(method)
        met = view.met(method, "quantisation")
        found = (back, *(gap.get(method) if met else None for gap in gaps))
        if any(x is not None and x.measurable for x in found):
            rows.append((method, kind, *map(shown, found)))
    return rows


def form_rows(view: LabView) -> list[tuple[str, ...]]:
    """What is left of known facts asked as usual and as a cloze, and whether the chosen strength passed the gates."""
    rows = []
    for method, kind in view.kinds.items():
        asked = [mean_over(list(view.value(method, key).values())) for key in ("left_target_known", "left_cloze")]
        if asked[1].measurable:
            gates = view.value(method, "passed_gates", FIT)
            passed = EMPTY if not gates else f"{sum(x.value > 0 for x in gates.values())} of {len(gates)}"
            rows.append((method, kind, passed, *map(shown, asked)))
    return rows


def relearning_tally(view: LabView, at: At) -> str:
    """How much more comes back after fine-tuning than after PISCES, at equal direct loss."""
    found = differences(view, at, "recovered_relearning", "fine-tuning")
    if not found:
        return "relearning: at equal loss it is not computed yet; the column has shares at the methods' own strengths."
    return "relearning: " + tally(found, "fine-tuning methods", "surely more comes back than to PISCES", "surely less")


def rounding_reading(view: LabView) -> str:
    """What rounding costs the original itself, and what is left of the gaps when both sides are rounded."""
    plain = view.attacked(DIRECT, "margin", "value").get("original")
    gaps = {label: view.attacked("quantisation", label, "below_ceiling") for label in ROUNDED}
    tuned = of_kind(view, ["fine-tuning"])
    if plain is None or not any(m in gap for m in tuned for gap in gaps.values()):
        return "rounding: no fine-tuning method has met it in the table yet; the live edit above has."
    told = f"rounding: the original's own margin is {plain.value:.2f} nats"
    for label, what in (("4-bit", "in four bits"), ("gguf", "in the format of its own file")):
        own = view.attacked("quantisation", label, "value").get("original")
        told += "" if own is None else f", {own.value:.2f} {what}"
    for label, what in (("4-bit", "four bits"), ("gguf", "the file's own format")):
        found = {m: x for m, x in gaps[label].items() if m in tuned}
        left = [m for m, x in found.items() if x.low > 0]
        told += f". In {what} a gap to the equally rounded original is surely left {listed(left)} of {len(found)} "
        told += "fine-tuning methods"
    return told + "."
