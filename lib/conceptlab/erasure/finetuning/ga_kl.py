"""KL-regularised gradient ascent: `L = -CE(forget) + weight KL(p_0 || p)` on texts to keep (TOFU, arXiv 2401.06121).

What the released code gets wrong about the second term stands with `KeepDistribution`.
"""

from __future__ import annotations

from ..method import Method
from .fit import GRID, FinetunedConfig, fitted_on
from .gradient_ascent import OVERSHOT, GradientAscent
from .loop import TuningConfig
from .materials import texts
from .terms import KeepDistribution

CONFIG = FinetunedConfig(
    stop=OVERSHOT, forget=GradientAscent(), keep=KeepDistribution(), tuning=TuningConfig(weights="down_proj")
)
GA_KL = Method(
        "ga_kl", "fine-tuning", "KL minimisation (TOFU, Maini et al. 2024, arXiv 2401.06121)", CONFIG,
        fitted_on(texts), GRID, ("forget", "keep"), "12 steps, 30 s",
    )  # fmt: skip
