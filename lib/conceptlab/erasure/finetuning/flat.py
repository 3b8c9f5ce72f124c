"""FLAT: forget data only (Wang et al. 2024, arXiv 2410.11143). `L = -g(P_refusal) + f*(g(P_answer))`, P the mean
probability of an answer's tokens: the variational form of the f-divergence `D_f`, `f*` the convex conjugate of f and g
the activation that makes it tight. `sup_g E_P[g] - E_Q[f*(g)]` is `D_f(P || Q)`, so lowering L drives the two apart.

The released code takes the mean over every position of the padded row, prompt and padding included, where the ignored
ones count as probability 0: the longer the batch's longest row, the smaller P and its gradient. Here P is the mean over
the answer's own tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import ConceptLabError
from ...models import LanguageModel, scored_logits
from ..method import Method
from .fit import GRID, FinetunedConfig, fitted_on
from .loop import TuningConfig
from .materials import refusals
from .terms import MarkedRows, Step, Term, row_means

LOG2 = math.log(2.0)
Scalar = Callable[[Tensor], Tensor]
# name -> g(v), and f*(g(v)) as a function of v (Nowozin et al. 2016, arXiv 1606.00709, table 2)
DIVERGENCES: dict[str, tuple[Scalar, Scalar]] = {
    "total_variation": (lambda v: torch.tanh(v) / 2, lambda v: torch.tanh(v) / 2),
    "kl": (lambda v: v, lambda v: torch.exp(v - 1)),
    "pearson": (lambda v: v, lambda v: v.square() / 4 + v),
    "jensen_shannon": (
        lambda v: LOG2 + torch.nn.functional.logsigmoid(v),
        lambda v: v - torch.nn.functional.logsigmoid(v) - LOG2,
    ),
}


def flat_loss(
    refusal: Float[Tensor, " batch"], answer: Float[Tensor, " batch"], divergence: str = "total_variation"
) -> Float[Tensor, ""]:
    """`-g(mean P_refusal) + f*(g(mean P_answer))` of probabilities in [0, 1]."""
    g, conjugate = DIVERGENCES[divergence]
    return conjugate(answer.mean()) - g(refusal.mean())


def answer_probability(lm: LanguageModel, rows: MarkedRows) -> Float[Tensor, " batch"]:
    """Mean probability of each row's scored tokens."""
    logits, targets, where = scored_logits(lm, rows.ids, rows.mask, rows.scored)
    return row_means(rows, logits.softmax(-1).gather(1, targets[:, None])[:, 0], where)


@dataclass(frozen=True)
class LossAdjustment(Term):
    """`flat_loss` of refusals and answers; raises ConceptLabError for an unknown divergence."""

    divergence: str = "total_variation"

    def __post_init__(self) -> None:
        if self.divergence not in DIVERGENCES:
            raise ConceptLabError(f"Unknown divergence {self.divergence!r}; choose one of {', '.join(DIVERGENCES)}.")

    def __call__(self, lm: LanguageModel, step: Step, reference: None) -> Float[Tensor, ""]:
        assert step.instead is not None
        return flat_loss(answer_probability(lm, step.instead), answer_probability(lm, step.forget), self.divergence)


CONFIG = FinetunedConfig(weight=0.0, forget=LossAdjustment(), tuning=TuningConfig(weights="down_proj"))
FLAT = Method(
        "flat", "fine-tuning", "FLAT, total variation (Wang et al. 2024, arXiv 2410.11143)", CONFIG,
        fitted_on(refusals), GRID, ("forget_facts",), "12 steps, 25 s",
    )  # fmt: skip
