"""The papers' claims beside what the tables say, for the end of notebook 06: each with a verdict and its basis."""

from __future__ import annotations

from collections.abc import Mapping

from ..core import Interval
from .lab_page import At, differences, name_of
from .lab_robustness import residue_points
from .lab_view import LabView, of_kind
from .oracle_page import FormTable, form_verdict
from .pooled import DIRECT

Row = tuple[str, str, str]  # claim, who claims it, what is seen here


def closing_rows(view: LabView, at: At, loss: float, forms: FormTable | None = None) -> list[Row]:
    """One row per claim of the papers that the tables can test; what is not computed yet is said to be so."""
    near, unseen = (differences(view, at, f"lost_{name}", "fine-tuning") for name in ("neighbour", "unseen"))
    margins = differences(view, at, "margin_lost_unseen", "fine-tuning")
    back = differences(view, at, "recovered_relearning", "fine-tuning")
    controls, tuned = differences(view, at, "lost_neighbour", "control"), ("gradient_difference", "npo")
    own, where = _against(view, loss, BEST)
    return [
        ("at equal loss each fine-tuning method costs the neighbour more than PISCES", "PISCES, by extension",
         _more(near)),
        (f"more than PISCES with words on both sides{where}", "PISCES, its best form", _more(own)),
        ("the control: other features in the same rows cost it more than PISCES", "our check",
         _shown(controls.get("other_features"))),
        ("and a near domain that no choice has seen", "PISCES, by extension", _more(unseen)),
        ("the same in margins", "nobody; our check", _more(margins)),
        ("it matters which features are written out of the rows", "PISCES, by extension", _more(_only(controls))),
        ("after equal loss more comes back to fine-tuning by relearning", "PISCES, by extension", _more(back)),
        ("rounding to four bits closes the gap that fine-tuning made", "2410.16454, larger models",
         _closed(view, "4-bit")),
        ("writing the model in the format of its own file closes it", "nobody; a check", _closed(view, "gguf")),
        ("fine-tuning leaves the concept vectors where they were", "ConceptVectors (abstract)", _stays(view)),
        ("data to keep is not needed (FLAT no worse than gradient difference)", "FLAT",
         _pair(view, loss, "flat", "gradient_difference")),
        ("the norm does the work, not the direction (RMU like its ablation)", "RMU (note)",
         _pair(view, loss, "rmu", "rmu_ablation")),
        ("no training is needed (SSD no worse than gradient difference)", "SSD, for images",
         _pair(view, loss, "ssd", "gradient_difference")),
        ("fine-tuning forgets mostly in the trained form", "ROCR", _form(forms, tuned, "bound")),
        ("a redirect in closed form forgets in every form", "ROCR", _form(forms, ("rocr",), "not bound")),
    ]  # fmt: skip


NOT_YET = "not computed yet"
BEST = "pisces+words_both"  # the form of PISCES that took most in notebook 04


def _more(found: Mapping[str, Interval]) -> str:
    """With how many of the methods it is sure, and the reverse: "seen" is said only where it is sure with each."""
    if not found:
        return NOT_YET
    more, less = sum(x.low > 0 for x in found.values()), sum(x.high < 0 for x in found.values())
    said = "seen with each" if more == len(found) else "seen with some, not with each" if more else "not seen"
    return f"{said}: surely so with {more} of {len(found)}, surely the reverse with {less}"


def _against(view: LabView, loss: float, method: str) -> tuple[dict[str, Interval], str]:
    """What fine-tuning costs the neighbour beyond another method, and on which concepts that one has a curve."""
    concepts = view.curves.get(method, {})
    if not concepts:
        return {}, ""
    at = view.at(loss, against=method)
    where = f" ({', '.join(map(name_of, concepts))} alone)" if len(concepts) < len(view.concepts) else ""
    return differences(view, at, "lost_neighbour", "fine-tuning", against=method), where


def _shown(x: Interval | None) -> str:
    if x is None or not x.measurable:
        return NOT_YET
    said = "surely more" if x.low > 0 else "surely less" if x.high < 0 else "cannot be told apart"
    return f"{x} nats: {said}"


def _only(controls: Mapping[str, Interval]) -> dict[str, Interval]:
    """The controls that write other features, or random ones, into the same rows."""
    return {m: x for m, x in controls.items() if m in ("other_features", "frozen_decoder", "random_features")}


def _stays(view: LabView, cosine: float = 0.9) -> str:
    rows = residue_points(view).get("fine-tuning", [])
    if not rows:
        return NOT_YET
    stay = sum(row[2] > cosine for row in rows)
    return f"{'seen' if stay == len(rows) else 'seen with some'}: cosine above {cosine:g} with {stay} of {len(rows)}"


def _pair(view: LabView, loss: float, method: str, other: str) -> str:
    """What one method costs the neighbour at equal loss, minus what another costs it."""
    if method not in view.curves or other not in view.curves:
        return NOT_YET
    x = view.at(loss, against=other).get(method, {}).get(f"lost_neighbour_minus_{other}")
    if x is None or not x.measurable:
        return "one of the two does not take so much from the target"
    return _shown(x).replace("nats:", "nats of the neighbour:")


def _closed(view: LabView, strength: str) -> str:
    """With how many fine-tuning methods no gap to the original is sure any more when both are rounded."""
    tuned = of_kind(view, ["fine-tuning"])
    before = {m: x for m, x in view.attacked(DIRECT, "margin", "lost").items() if m in tuned and x.low > 0}
    after = view.attacked("quantisation", strength, "below_ceiling")
    both = [m for m in before if m in after]
    if not both:
        return NOT_YET
    left = [m for m in both if after[m].low > 0]
    told = "; ".join(f"{name_of(m)} {before[m].value:.2f}, then {after[m]}" for m in both)
    said = "seen" if not left else "not seen" if len(left) == len(both) else "seen with some"
    return f"{said}: of {len(both)} sure gap{'s' if len(both) != 1 else ''} {len(left)} surely left ({told})"


def _form(forms: FormTable | None, methods: tuple[str, ...], claim: str) -> str:
    """Verdicts of trainings: against the same asked form under other trainings, where there are any."""
    if forms is None:
        return NOT_YET
    beyond, gaps = forms.beyond(), forms.gaps()
    found = {key: beyond.get(key, x) for key, x in gaps.items() if key[0] in methods}
    if not found:
        return NOT_YET
    told = [form_verdict(x) for x in found.values()]
    held = sum(x.startswith(claim) for x in told)
    open_ = told.count("cannot be told")
    said = "seen" if held > len(told) / 2 else "cannot be told" if open_ == len(told) else "seen with some"
    said = "not seen" if not held and open_ < len(told) else said
    n = f"{len(told)} training{'s' if len(told) != 1 else ''}"
    return f"{said}: {claim} to the form in {held} of {n}, cannot be told in {open_}"
