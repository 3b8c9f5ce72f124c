"""Attacks on an intervention: can what it removed be brought back, at which cost?

Every attack takes a model and an intervention (anything with `.applied(lm)`, or None for the unchanged model) and
leaves the model bit-identical. Results are judged by the same questions as the intervention itself.
"""

from .base import AttackResult, Cost, Intervention, applied, recovered_share
from .quantisation import Quantised, round_to_nearest
from .relearning import RelearnConfig, next_token_loss, relearn, text_rows

__all__ = [
    "AttackResult",
    "Cost",
    "Intervention",
    "Quantised",
    "RelearnConfig",
    "applied",
    "next_token_loss",
    "recovered_share",
    "relearn",
    "round_to_nearest",
    "text_rows",
]
