"""Erasure that is exact by construction: what was shown never touched the parameters that are left."""

from .simulation import Deletions, deletions_until_retraining, rotations
from .sliced import SliceConfig, Sliced, layer_groups, train_sliced

__all__ = [
    "Deletions",
    "SliceConfig",
    "Sliced",
    "deletions_until_retraining",
    "layer_groups",
    "rotations",
    "train_sliced",
]
