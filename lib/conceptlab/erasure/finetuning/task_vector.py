"""Task-vector negation: train *on* what is to be forgotten and go the other way, `W <- W - scale (W_forget - W)`
(Ilharco et al. 2022, arXiv 2212.04089, section 3).

The training lowers a bounded loss, so nothing diverges; how far the negation goes is the scale alone, and may be more
than 1. The paper trains until the task is learnt and chooses the scale on held-out data, as here.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ...models import LanguageModel
from ..method import Method
from .fit import RATES, FinetunedConfig, fitted_on
from .loop import TuningConfig
from .materials import texts
from .terms import Step, Term, cross_entropy


@dataclass(frozen=True)
class GradientDescent(Term):
    """Cross-entropy of what is to be forgotten."""

    def __call__(self, lm: LanguageModel, step: Step, reference: None) -> Float[Tensor, ""]:
        return cross_entropy(lm, step.forget)


CONFIG = FinetunedConfig(weight=0.0, forget=GradientDescent(), tuning=TuningConfig(weights="down_proj"))
TASK_VECTOR = Method(
        "task_vector", "fine-tuning", "task-vector negation (Ilharco et al. 2022, arXiv 2212.04089)", CONFIG,
        fitted_on(texts, sign=-1.0), {"rate": RATES, "scale": (0.5, 1.0, 1.5, 2.0)}, ("forget",), "12 steps, 20 s",
    )  # fmt: skip
