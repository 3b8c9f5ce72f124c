"""Gradient ascent: `L = -CE(forget)` (Jang et al. 2022, arXiv 2210.01504).

Nothing holds the model back: the loss has no lower bound. The codes that descend from TOFU stop after a fixed number of
epochs, whatever is left of the model by then; here the training may end early, and its change is scaled.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ...models import LanguageModel
from ..method import Method
from .fit import GRID, FinetunedConfig, fitted_on
from .loop import TuningConfig
from .materials import texts
from .terms import Step, Term, cross_entropy

OVERSHOT = 6.0  # nats per token after which a loss without a bound is followed no further


@dataclass(frozen=True)
class GradientAscent(Term):
    """Minus the cross-entropy of what is to be forgotten."""

    def __call__(self, lm: LanguageModel, step: Step, reference: None) -> Float[Tensor, ""]:
        return -cross_entropy(lm, step.forget)


CONFIG = FinetunedConfig(weight=0.0, stop=OVERSHOT, forget=GradientAscent(), tuning=TuningConfig(weights="down_proj"))
GRADIENT_ASCENT = Method(
        "gradient_ascent", "fine-tuning", "gradient ascent (Jang et al. 2022, arXiv 2210.01504)", CONFIG,
        fitted_on(texts), GRID, ("forget",), "12 steps, 20 s",
    )  # fmt: skip
