"""Negative preference optimisation: `-(2 / beta) mean log sigmoid(-beta (log p - log p_ref))` and the loss on what is
to be kept (Zhang et al. 2024, arXiv 2404.05868; with the second term NPO + gradient difference there)."""

from ..method import Method
from .eraser import EraserConfig
from .fit import SCALES, FinetunedConfig, fit_finetuned

CONFIG = FinetunedConfig(eraser=EraserConfig("npo", steps=12, batch_size=4, n_ctx=24, lr=2e-4))
NPO = Method(
        "npo", "fine-tuning", "NPO with a retain loss (arXiv 2404.05868)", CONFIG, fit_finetuned,
        {"scale": SCALES}, ("forget", "keep"), "12 steps, 1 min",
    )  # fmt: skip
