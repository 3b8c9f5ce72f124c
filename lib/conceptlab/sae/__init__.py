"""Sparse autoencoders: dictionaries of features for MLP outputs."""

from .architectures import ARCHITECTURES, make_sae
from .base import SAE, SAEConfig
from .batchtopk import BatchTopKSAE
from .command import train_dictionaries
from .distributed import SOLO, World, join, leave
from .files.io import check_fits, load_sae, model_family, sae_site, save_sae
from .gated import GatedSAE
from .jumprelu import JumpReLUSAE, jump_relu, step
from .metrics import Quality, fve, fve_by_group, loss_recovered, quality, spliced_loss
from .relu import ReLUSAE
from .shipped import N_CTX, build_shipped, load_card, load_shipped, shipped_layers
from .sparse import top_scores, weighted_rows
from .topk import TopKSAE
from .train import History, TrainConfig, train_sae

__all__ = [
    "ARCHITECTURES",
    "BatchTopKSAE",
    "GatedSAE",
    "History",
    "JumpReLUSAE",
    "N_CTX",
    "Quality",
    "ReLUSAE",
    "SAE",
    "SAEConfig",
    "SOLO",
    "TopKSAE",
    "TrainConfig",
    "World",
    "build_shipped",
    "check_fits",
    "fve",
    "fve_by_group",
    "join",
    "jump_relu",
    "leave",
    "load_card",
    "load_sae",
    "load_shipped",
    "loss_recovered",
    "make_sae",
    "model_family",
    "quality",
    "sae_site",
    "save_sae",
    "shipped_layers",
    "spliced_loss",
    "step",
    "top_scores",
    "train_dictionaries",
    "train_sae",
    "weighted_rows",
]
