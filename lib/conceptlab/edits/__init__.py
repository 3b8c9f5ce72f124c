"""Changes of weights: `WeightEdit`, the contract `Intervention`, random controls, LoRA, training in place."""

from .controls import match_norms, random_direction_edit, random_like, random_norm_edit
from .intervention import Intervention, applied
from .lora import lora
from .training import trainable, trained_parameters
from .weight_edit import INPUT, Dense, LowRank, Rows, WeightEdit, value_edit

__all__ = [
    "Dense",
    "INPUT",
    "Intervention",
    "LowRank",
    "Rows",
    "WeightEdit",
    "applied",
    "lora",
    "match_norms",
    "random_direction_edit",
    "random_like",
    "random_norm_edit",
    "trainable",
    "trained_parameters",
    "value_edit",
]
