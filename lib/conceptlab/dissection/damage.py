"""Edits brought to the same damage: what a random edit, or another method's, is compared at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ..core import NotPossible
from ..data import Question
from ..edits import WeightEdit, random_like
from ..evaluation import score_questions
from ..models import LanguageModel


def at_damage(
    edit: WeightEdit, damage: Callable[[WeightEdit], float], wanted: float, tol: float = 0.1, most: float = 128.0
) -> WeightEdit:
    """`edit` scaled until `damage` of it is `wanted`, to within the share `tol` of it, by doubling and bisection.

    The scale is looked for from 1 downward where the whole edit does more, else upward: a random edit of the norm of a
    trained one does next to nothing. Raises NotPossible where no scale up to `most` does so much.
    """
    if wanted <= 0:
        raise NotPossible(f"There is no damage to match (it is {wanted:.3g}).")
    low, scale = 0.0, 1.0
    while (found := damage(edit * scale)) < wanted * (1 - tol):
        low, scale = scale, 2 * scale
        if scale > most:
            raise NotPossible(f"Scaled up by {most:g} the edit still does less than {wanted:.3g}.")
    high = scale
    for _ in range(12):
        if abs(found - wanted) <= tol * wanted:
            return edit * scale
        scale = (low * high) ** 0.5 if low else high / 2
        found = damage(edit * scale)
        low, high = (scale, high) if found < wanted else (low, scale)
    raise NotPossible(f"No scale of the edit does {wanted:.3g} to within {tol:.0%}; its damage jumps.")


def random_as_costly(
    lm: LanguageModel, edit: WeightEdit, questions: Sequence[Question], seed: int = 0, tol: float = 0.1
) -> WeightEdit:
    """Noise in the same columns, scaled until it costs the questions as much: a control for attacks that train.

    Noise of equal norm may cost far less or more, and then it is repaired faster or slower whatever it hides. Raises
    NotPossible where the edit costs nothing, or no scale of the noise costs as much.
    """

    @torch.no_grad()
    def margin(change: WeightEdit) -> float:
        with change.applied(lm):
            return float(score_questions(lm, questions).margin.mean())

    with torch.no_grad():
        before = float(score_questions(lm, questions).margin.mean())
    noise = random_like(edit, seed)
    found = at_damage(noise, lambda change: before - margin(change), before - margin(edit), tol)
    return replace(found, info={"control": "random edit of equal damage", "seed": seed})
