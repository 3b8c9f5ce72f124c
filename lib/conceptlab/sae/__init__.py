"""Sparse autoencoders: dictionaries of features for MLP outputs."""

from .architectures import ARCHITECTURES, make_sae
from .base import SAE, SAEConfig
from .batchtopk import BatchTopKSAE
from .checkpoint import check_folder
from .command import cached_dictionaries, train_dictionaries
from .distributed import SOLO, World, join, leave
from .files.convert import convert
from .files.io import load_sae, save_sae
from .gated import GatedSAE
from .jumprelu import JumpReLUSAE, jump_relu, step
from .metrics import Quality, agreement, fve, fve_by_group, length_ratio, loss_recovered, quality, spliced_loss
from .probing import probe_draws
from .relu import ReLUSAE
from .shipped import N_CTX, build_shipped, load_card, load_shipped, saes_folder, shipped_layers
from .sites import (
    check_editable,
    check_fits,
    check_harvest,
    is_transcoder,
    model_family,
    sae_site,
    shared_kind,
    written_site,
)
from .sparse import top_scores, weighted_rows
from .topk import TopKSAE
from .train import History, train_sae
from .train_config import TrainConfig, check_config
from .transcoder import Transcoder, TranscoderConfig

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
    "Transcoder",
    "TranscoderConfig",
    "World",
    "agreement",
    "build_shipped",
    "cached_dictionaries",
    "check_config",
    "check_editable",
    "check_fits",
    "check_folder",
    "check_harvest",
    "convert",
    "fve",
    "fve_by_group",
    "is_transcoder",
    "join",
    "jump_relu",
    "leave",
    "length_ratio",
    "load_card",
    "load_sae",
    "load_shipped",
    "loss_recovered",
    "make_sae",
    "model_family",
    "probe_draws",
    "quality",
    "sae_site",
    "saes_folder",
    "save_sae",
    "shared_kind",
    "shipped_layers",
    "spliced_loss",
    "step",
    "top_scores",
    "train_dictionaries",
    "train_sae",
    "weighted_rows",
    "written_site",
]
