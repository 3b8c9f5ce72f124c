"""Gradient difference: `L = -CE(forget) + keep CE(keep)` (with the second term: gradient
difference, Liu et al. 2022; arXiv 2203.12817)."""

from ..method import Method
from .eraser import EraserConfig
from .fit import SCALES, FinetunedConfig, fit_finetuned

CONFIG = FinetunedConfig(eraser=EraserConfig("gradient_ascent", steps=12, batch_size=4, n_ctx=24, lr=2e-4))
GRADIENT_DIFFERENCE = Method(
        "gradient_difference", "fine-tuning", "gradient difference (Liu et al. 2022, arXiv 2203.12817)", CONFIG,
        fit_finetuned, {"scale": SCALES}, ("forget", "keep"), "12 steps, 1 min",
    )  # fmt: skip
