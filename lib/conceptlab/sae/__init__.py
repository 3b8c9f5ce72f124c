"""Sparse autoencoders: dictionaries of features for MLP outputs."""

from .base import SAE, SAEConfig
from .io import load_sae, save_sae
from .topk import TopKSAE
from .train import History, TrainConfig, live_dictionaries, train_topk

__all__ = [
    "SAE",
    "History",
    "SAEConfig",
    "TopKSAE",
    "TrainConfig",
    "live_dictionaries",
    "load_sae",
    "save_sae",
    "train_topk",
]
