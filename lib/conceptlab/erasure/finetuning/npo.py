"""Negative preference optimisation: `L = -(2 / beta) mean log sigmoid(-beta (log p - log p_0))` over rows to forget
(Zhang et al. 2024, arXiv 2404.05868), alone, with a loss on what is to be kept, or with a KL term there.

`log p` is the sum over a row's tokens, `log p_0` the same of the original. As beta goes to 0 the loss tends to gradient
ascent on the row's sum (plus a constant that grows without bound); a row far below the original no longer counts.
The released code holds a second model in memory and runs it in every step; the original does not change, so that its
sums are computed once here. It also sums over rows of any length with one beta, so that long rows saturate first; rows
have one length here but for the last of each text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...models import LanguageModel
from ..method import Method
from .fit import GRID, FinetunedConfig, fitted_on
from .loop import TuningConfig
from .materials import texts
from .terms import KeepDistribution, Step, Term, row_logprobs


def npo_loss(logprobs: Float[Tensor, " batch"], reference: Float[Tensor, " batch"], beta: float) -> Float[Tensor, ""]:
    """`-(2 / beta) mean log sigmoid(-beta (log p - log p_0))` (arXiv 2404.05868)."""
    return -(2 / beta) * torch.nn.functional.logsigmoid(-beta * (logprobs - reference)).mean()


@dataclass(frozen=True)
class NegativePreference(Term):
    """`npo_loss` of the rows to forget."""

    beta: float = 0.1  # inverse temperature, per nat of a row's sum

    def reference(self, lm: LanguageModel, step: Step, head_moves: bool) -> Float[Tensor, " batch"]:
        return row_logprobs(lm, step.forget)

    def __call__(self, lm: LanguageModel, step: Step, reference: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        return npo_loss(row_logprobs(lm, step.forget), reference, self.beta)


SOURCE = "NPO (Zhang et al. 2024, arXiv 2404.05868)"
NPO = Method(
        "npo", "fine-tuning", f"{SOURCE} with a retain loss",
        FinetunedConfig(forget=NegativePreference(), tuning=TuningConfig(weights="down_proj")),
        fitted_on(texts), GRID, ("forget", "keep"), "12 steps, 40 s",
    )  # fmt: skip
NPO_ALONE = Method(
        "npo_alone", "fine-tuning", f"{SOURCE}, forget data only",
        FinetunedConfig(weight=0.0, forget=NegativePreference(), tuning=TuningConfig(weights="down_proj")),
        fitted_on(texts), GRID, ("forget",), "12 steps, 25 s",
    )  # fmt: skip
NPO_KL = Method(
        "npo_kl", "fine-tuning", f"{SOURCE} with a KL term on what is kept",
        FinetunedConfig(forget=NegativePreference(), keep=KeepDistribution(), tuning=TuningConfig(weights="down_proj")),
        fitted_on(texts), GRID, ("forget", "keep"), "12 steps, 40 s",
    )  # fmt: skip
