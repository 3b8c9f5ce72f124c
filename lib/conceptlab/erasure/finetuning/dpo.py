"""Direct preference optimisation of a refusal over the answer (Rafailov et al. 2023, arXiv 2305.18290, eq. 7, with the
factor of TOFU, arXiv 2401.06121): `L = -(2 / beta) mean log sigmoid(beta (r(refusal) - r(answer)))`,
`r(y) = log p(y | x) - log p_0(y | x)`, summed over the tokens of `y`, and a loss on what is to be kept.

At the original both ratios are 0, so that the loss is `(2 / beta) log 2` whatever the lengths. Of the released codes
one sets the original's ratios to 0 (a line left from a test), which makes a long refusal lose to a short answer by
its length alone; another prefers an unrelated article of another length, so that style is what is learnt.
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
from .materials import refusals
from .terms import Step, Term, row_logprobs


def dpo_loss(preferred: Float[Tensor, " batch"], other: Float[Tensor, " batch"], beta: float) -> Float[Tensor, ""]:
    """`-(2 / beta) mean log sigmoid(beta (preferred - other))` of log-ratios to the original, in nats."""
    return -(2 / beta) * torch.nn.functional.logsigmoid(beta * (preferred - other)).mean()


@dataclass(frozen=True)
class DirectPreference(Term):
    """`dpo_loss` of refusals over answers."""

    beta: float = 0.1  # inverse temperature, per nat of an answer's sum

    def _both(self, lm: LanguageModel, step: Step) -> Float[Tensor, "2 batch"]:
        assert step.instead is not None
        return torch.stack([row_logprobs(lm, step.instead), row_logprobs(lm, step.forget)])

    def reference(self, lm: LanguageModel, step: Step, head_moves: bool) -> Float[Tensor, "2 batch"]:
        return self._both(lm, step)

    def __call__(self, lm: LanguageModel, step: Step, reference: Float[Tensor, "2 batch"]) -> Float[Tensor, ""]:
        preferred, other = self._both(lm, step) - reference
        return dpo_loss(preferred, other, self.beta)


CONFIG = FinetunedConfig(forget=DirectPreference(), tuning=TuningConfig(weights="down_proj"))
DPO = Method(
        "dpo", "fine-tuning", "DPO to refusals (Rafailov et al. 2023, arXiv 2305.18290; TOFU)", CONFIG,
        fitted_on(refusals), GRID, ("forget_facts", "keep_facts", "keep"), "12 steps, 40 s",
    )  # fmt: skip
