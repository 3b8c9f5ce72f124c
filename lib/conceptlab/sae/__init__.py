"""Sparse autoencoders: dictionaries of features for MLP outputs."""

from .architectures import ARCHITECTURES, make_sae
from .base import SAE, SAEConfig
from .batchtopk import BatchTopKSAE
from .distributed import World
from .gated import GatedSAE
from .io import check_fits, load_sae, sae_site, save_sae
from .jumprelu import JumpReLUSAE, jump_relu, step
from .metrics import (
    Quality,
    auroc,
    auroc_draws,
    best_direction,
    draws_interval,
    fve,
    fve_by_group,
    loss_recovered,
    quality,
    spliced_loss,
)
from .relu import ReLUSAE
from .shipped import load_card, load_shipped, shipped_layers
from .sparse import top_scores, weighted_rows
from .topk import TopKSAE
from .train import History, TrainConfig, train_sae

__all__ = [
    "ARCHITECTURES",
    "SAE",
    "BatchTopKSAE",
    "GatedSAE",
    "History",
    "JumpReLUSAE",
    "Quality",
    "ReLUSAE",
    "SAEConfig",
    "TopKSAE",
    "TrainConfig",
    "World",
    "auroc",
    "auroc_draws",
    "best_direction",
    "check_fits",
    "draws_interval",
    "fve",
    "fve_by_group",
    "jump_relu",
    "load_card",
    "load_sae",
    "load_shipped",
    "loss_recovered",
    "make_sae",
    "quality",
    "sae_site",
    "save_sae",
    "shipped_layers",
    "spliced_loss",
    "step",
    "top_scores",
    "train_sae",
    "weighted_rows",
]
