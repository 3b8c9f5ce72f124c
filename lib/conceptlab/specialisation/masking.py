"""Masked value vectors, what masking costs, and the specialisation score of arXiv 2505.17260."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core import ConceptLabError, Interval, interval_of, widened
from ..models import Change, LanguageModel


@dataclass(frozen=True)
class Masking:
    """An intervention: the coefficients of the value vectors in `mask` are 0, which equals zeroing the vectors."""

    mask: Bool[Tensor, "layers d_mlp"]

    def applied(self, lm: LanguageModel) -> Change:
        """Inside the block the vectors write nothing. Raises ConceptLabError for a mask of another model's shape."""
        if tuple(self.mask.shape) != (lm.n_layers, lm.d_mlp):
            raise ConceptLabError(
                f"{lm.name} has {lm.n_layers} layers of {lm.d_mlp} value vectors; the mask is {list(self.mask.shape)}."
            )
        layers = self.mask.any(1).nonzero()[:, 0].tolist()
        return lm.intervene({("neurons", layer): _zeroing(self.mask[layer].to(lm.device)) for layer in layers})


def _zeroing(row: Bool[Tensor, " d_mlp"]) -> Callable[[Tensor], Tensor]:
    return lambda neurons: neurons.masked_fill(row, 0.0)


def specialisation_score(general_before: float, general_after: float, specific_after: float) -> float:
    """PSS of arXiv 2505.17260: `|general after masking - specific after masking| / general before`.

    General: the score on other concepts' questions; specific: on those of the masked concept. The absolute value makes
    noise positive, and concepts of unequal difficulty score before anything is masked: compare with a control.
    Raises ConceptLabError where nothing is known before.
    """
    if not general_before > 0:
        raise ConceptLabError("The score divides by the general score before masking, which is 0: nothing is known.")
    return abs(general_after - specific_after) / general_before


def score_interval(
    before: Float[Tensor, " m"], after: Float[Tensor, " m"], specific: Float[Tensor, " n"],
    n_resamples: int = 2_000, seed: int = 0,
) -> Interval:  # fmt: skip
    """The specialisation score with its interval: both sets of questions are drawn anew, each on its own.

    `before`, `after`: right (1) or wrong (0) on the general questions; `specific`: after masking, on the concept's.
    """
    value = specialisation_score(*(float(x.double().mean()) for x in (before, after, specific)))
    a, b = _draws(torch.stack([before, after], 1), n_resamples, seed), _draws(specific[:, None], n_resamples, seed + 1)
    draws = (a[:, 1] - b[:, 0]).abs() / a[:, 0].clamp_min(1e-9)
    return interval_of(draws, value, len(specific), "questions")


def gap_interval(
    specific: Float[Tensor, " n"], general: Float[Tensor, " m"], n_resamples: int = 2_000, seed: int = 0
) -> Interval:
    """Mean cost (nats) on the concept's questions minus mean cost on the others', each set drawn anew on its own."""
    value = float(specific.double().mean() - general.double().mean())
    a, b = _draws(specific[:, None], n_resamples, seed)[:, 0], _draws(general[:, None], n_resamples, seed + 1)[:, 0]
    return interval_of(widened(a - b, value, min(len(specific), len(general))), value, len(specific), "questions")


def _draws(values: Float[Tensor, "n k"], n_resamples: int, seed: int) -> Float[Tensor, "draws k"]:
    """Means over questions drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(values), (n_resamples, len(values)), generator=generator)
    return values.double()[picks].mean(1)
