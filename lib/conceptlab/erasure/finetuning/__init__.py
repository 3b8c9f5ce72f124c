"""Erasure by fine-tuning: one file per loss."""

from .eraser import EraserConfig, finetuned_eraser, npo_loss
from .gradient_difference import GRADIENT_DIFFERENCE
from .npo import NPO

__all__ = ["GRADIENT_DIFFERENCE", "NPO", "EraserConfig", "finetuned_eraser", "npo_loss"]
