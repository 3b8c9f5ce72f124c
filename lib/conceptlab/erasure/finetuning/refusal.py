"""Refusal tuning: `L = CE(refusal | question) + weight CE(keep)` ("IDK" of TOFU, arXiv 2401.06121).

The right answer is in no term, so nothing takes it away: what falls is its probability at the first token, which now
goes to the refusal. The released code joins refusals and kept answers into one batch and takes the mean over tokens of
both, so that the weight of what is kept depends on how long the refusals are; here each term is its own mean.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ...models import LanguageModel
from ..method import Method
from .fit import GRID, FinetunedConfig, fitted_on
from .loop import TuningConfig
from .materials import refusals
from .terms import Step, Term, cross_entropy


@dataclass(frozen=True)
class OtherAnswer(Term):
    """Cross-entropy of the other answer to each question that is to be forgotten."""

    def __call__(self, lm: LanguageModel, step: Step, reference: None) -> Float[Tensor, ""]:
        assert step.instead is not None
        return cross_entropy(lm, step.instead)


CONFIG = FinetunedConfig(forget=OtherAnswer(), tuning=TuningConfig(weights="down_proj"))
REFUSAL = Method(
        "refusal", "fine-tuning", "refusal tuning (TOFU, Maini et al. 2024, arXiv 2401.06121)", CONFIG,
        fitted_on(refusals), GRID, ("forget_facts", "keep_facts", "keep"), "12 steps, 30 s",
    )  # fmt: skip
