"""The five architectures by name."""

from __future__ import annotations

from ..core import ConceptLabError
from .base import SAE, SAEConfig
from .batchtopk import BatchTopKSAE
from .gated import GatedSAE
from .jumprelu import JumpReLUSAE
from .relu import ReLUSAE
from .topk import TopKSAE

ARCHITECTURES: dict[str, type[SAE]] = {
    "relu": ReLUSAE,
    "gated": GatedSAE,
    "topk": TopKSAE,
    "batchtopk": BatchTopKSAE,
    "jumprelu": JumpReLUSAE,
}


def architecture(name: str) -> type[SAE]:
    """The class of an architecture. Raises ConceptLabError for an unknown name."""
    if name not in ARCHITECTURES:
        raise ConceptLabError(f"Unknown architecture {name!r}; known are {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[name]


def make_sae(cfg: SAEConfig, seed: int = 0) -> SAE:
    """An untrained dictionary of the architecture that `cfg` names."""
    return architecture(cfg.architecture)(cfg, seed)
