"""Changes of weights: `WeightEdit`, the contract `Intervention`, random controls, LoRA, training in place."""

from .controls import (
    match_norms,
    of_equal_activity,
    permuted_neurons,
    random_direction_edit,
    random_like,
    random_norm_edit,
)
from .intervention import Intervention, applied
from .kinds import Dense, LowRank, Rows
from .lora import Adapter, Starts, lora, merged
from .storage import check_export
from .training import Trainer, trainable, trained_parameters
from .weight_edit import INPUT, WeightEdit, value_edit

__all__ = [
    "Adapter",
    "Dense",
    "INPUT",
    "Intervention",
    "LowRank",
    "Rows",
    "Starts",
    "Trainer",
    "WeightEdit",
    "applied",
    "check_export",
    "lora",
    "match_norms",
    "merged",
    "of_equal_activity",
    "permuted_neurons",
    "random_direction_edit",
    "random_like",
    "random_norm_edit",
    "trainable",
    "trained_parameters",
    "value_edit",
]
