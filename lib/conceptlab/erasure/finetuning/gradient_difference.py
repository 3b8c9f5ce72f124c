"""Gradient difference: `L = -CE(forget) + weight CE(keep)` (Liu et al. 2022, arXiv 2203.12817).

The released trainers draw the rows to keep at random from the whole retain set, which holds little that is near the
concept; here half of them are about the neighbour.
"""

from __future__ import annotations

from ..method import Method
from .fit import GRID, FinetunedConfig, fitted_on
from .gradient_ascent import GradientAscent
from .loop import TuningConfig
from .materials import texts

CONFIG = FinetunedConfig(forget=GradientAscent(), tuning=TuningConfig(weights="down_proj"))
GRADIENT_DIFFERENCE = Method(
        "gradient_difference", "fine-tuning", "gradient difference (Liu et al. 2022, arXiv 2203.12817)", CONFIG,
        fitted_on(texts), GRID, ("forget", "keep"), "12 steps, 30 s",
    )  # fmt: skip
