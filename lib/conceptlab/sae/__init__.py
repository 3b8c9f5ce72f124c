"""Sparse autoencoders: dictionaries of features for MLP outputs."""

from .base import SAE, SAEConfig
from .io import load_sae, save_sae
from .metrics import (
    Quality,
    auroc,
    auroc_draws,
    best_direction,
    draws_interval,
    fve,
    fve_by_group,
    loss_recovered,
    pool_max,
    quality,
    spliced_loss,
)
from .sparse import top_scores, weighted_rows
from .topk import TopKSAE
from .train import History, TrainConfig, live_dictionaries, train_topk

__all__ = [
    "SAE",
    "History",
    "Quality",
    "SAEConfig",
    "TopKSAE",
    "TrainConfig",
    "auroc",
    "auroc_draws",
    "best_direction",
    "draws_interval",
    "fve",
    "fve_by_group",
    "live_dictionaries",
    "load_sae",
    "loss_recovered",
    "pool_max",
    "quality",
    "save_sae",
    "spliced_loss",
    "top_scores",
    "train_topk",
    "weighted_rows",
]
