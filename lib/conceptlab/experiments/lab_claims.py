"""The papers' claims beside what the tables say, for the end of notebook 06: each with a verdict and its basis."""

from __future__ import annotations

from collections.abc import Mapping

from ..core import Interval
from .lab_page import At, differences, residue_points
from .lab_view import LabView
from .oracle_page import FormTable

Row = tuple[str, str, str]  # claim, who claims it, what is seen here


def closing_rows(view: LabView, at: At, loss: float, forms: FormTable | None = None) -> list[Row]:
    """One row per claim of the papers that the tables can test; what is not computed yet is said to be so."""
    near, unseen = (differences(view, at, f"lost_{name}", "fine-tuning") for name in ("neighbour", "unseen"))
    back = differences(view, at, "recovered_relearning", "fine-tuning")
    controls, tuned = differences(view, at, "lost_neighbour", "control"), ("gradient_difference", "npo")
    return [
        ("at equal loss fine-tuning costs the neighbour more than PISCES", "PISCES (abstract)", _more(near)),
        ("and a near domain that no choice has seen", "PISCES, by extension", _more(unseen)),
        ("it matters which features are written out of the rows", "PISCES, by extension", _more(_only(controls))),
        ("after equal loss more comes back to fine-tuning by relearning", "PISCES (abstract)", _more(back)),
        ("fine-tuning leaves the concept vectors where they were", "ConceptVectors (abstract)", _stays(view)),
        ("data to keep is not needed (FLAT no worse than gradient difference)", "FLAT (abstract)",
         _pair(view, loss, "flat", "gradient_difference")),
        ("the norm does the work, not the direction (RMU like its ablation)", "RMU (note)",
         _pair(view, loss, "rmu", "rmu_ablation")),
        ("no training is needed (SSD no worse than gradient difference)", "SSD (abstract, vision)",
         _pair(view, loss, "ssd", "gradient_difference")),
        ("fine-tuning forgets mostly in the trained form", "ROCR (abstract)", _bound(forms, tuned)),
        ("a redirect in closed form forgets in every form", "ROCR (abstract)", _free(forms, ("rocr",))),
    ]  # fmt: skip


NOT_YET = "not computed yet"


def _more(found: Mapping[str, Interval]) -> str:
    """Of so many how many cost surely more, surely less."""
    if not found:
        return NOT_YET
    more, less = sum(x.low > 0 for x in found.values()), sum(x.high < 0 for x in found.values())
    said = "seen" if more > len(found) / 2 else "not seen" if more == 0 else "seen with some"
    return f"{said}: surely so with {more} of {len(found)}, surely the reverse with {less}"


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
    said = "surely more" if x.low > 0 else "surely less" if x.high < 0 else "cannot be told apart"
    return f"{x} nats of the neighbour: {said}"


def _bound(forms: FormTable | None, methods: tuple[str, ...]) -> str:
    found = [] if forms is None else [x for (m, _), x in forms.gaps().items() if m in methods]
    if not found:
        return NOT_YET
    bound, free = sum(x.low > 0 for x in found), sum(x.high < 0 for x in found)
    said = "seen" if bound > len(found) / 2 else "not seen" if not bound else "seen with some"
    return f"{said}: surely so in {bound} of {len(found)} trainings, surely the reverse in {free}"


def _free(forms: FormTable | None, methods: tuple[str, ...]) -> str:
    found = [] if forms is None else [x for (m, _), x in forms.gaps().items() if m in methods]
    if not found:
        return NOT_YET
    bound = sum(x.low > 0 for x in found)
    said = "seen" if not bound else "not seen"
    return (
        f"{said}: surely bound to the form in {bound} of {len(found)} (largest gap {max(x.value for x in found):.2f})"
    )
