"""SimNPO: NPO without a reference, per token: `L = -(2 / beta) mean log sigmoid(-(beta / n) log p - gamma)`
(Fan et al. 2024, arXiv 2410.07163), `n` the number of a row's predicted tokens, and a loss on what is to be kept.

The released code divides the sum over predicted tokens by the number of labels *before* the shift: one too many where
the first token has a label (whole texts); a question in front hides it. At the paper's beta of 2.5 and gamma of 0 the
sigmoid is saturated from the start on texts that the model does not know by heart: at 3.5 nats a token its gradient is
3e-4 of that of gradient ascent, and nothing happens. The margin gamma moves the working point to where texts stand
(`beta * 3.5` for ours), so that a row counts half at the start and ever less as it is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...models import LanguageModel
from ..method import Method
from .fit import GRID, FinetunedConfig, fitted_on
from .loop import TuningConfig
from .materials import texts
from .terms import Step, Term, row_logprobs


def simnpo_loss(
    logprobs: Float[Tensor, " batch"], lengths: Int[Tensor, " batch"], beta: float, gamma: float
) -> Float[Tensor, ""]:
    """`-(2 / beta) mean log sigmoid(-(beta / n) log p - gamma)`; `log p` summed over a row's `n` predicted tokens."""
    return -(2 / beta) * torch.nn.functional.logsigmoid(-beta * logprobs / lengths - gamma).mean()


@dataclass(frozen=True)
class SimpleNegativePreference(Term):
    """`simnpo_loss` of the rows to forget."""

    beta: float = 0.5  # inverse temperature, per nat a token
    gamma: float = 1.75  # margin: beta times the nats a token at which a row counts half

    def __call__(self, lm: LanguageModel, step: Step, reference: None) -> Float[Tensor, ""]:
        return simnpo_loss(row_logprobs(lm, step.forget), step.forget.lengths, self.beta, self.gamma)


CONFIG = FinetunedConfig(forget=SimpleNegativePreference(), tuning=TuningConfig(weights="down_proj", lr=4e-4))
SIMNPO = Method(
        "simnpo", "fine-tuning", "SimNPO (Fan et al. 2024, arXiv 2410.07163)", CONFIG, fitted_on(texts), GRID,
        ("forget", "keep"), "12 steps, 30 s",
    )  # fmt: skip
