"""Read and write dictionaries: `cfg.json` beside `sae_weights.safetensors`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..cache import ConceptLabError
from .base import SAE, SAEConfig
from .topk import TopKSAE

ARCHITECTURES = {"topk": TopKSAE}


def save_sae(sae: SAE, folder: Path) -> None:
    """Write a dictionary into `folder` (made if absent)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: p.detach().cpu().contiguous() for name, p in sae.named_parameters()}
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(asdict(sae.cfg), indent=1))


def load_sae(folder: Path) -> SAE:
    """Read a dictionary. Raises ConceptLabError when a file is missing or a shape is wrong."""
    folder = Path(folder)
    try:
        cfg = SAEConfig(**json.loads((folder / "cfg.json").read_text()))
        tensors = load_file(folder / "sae_weights.safetensors")
    except (OSError, TypeError, ValueError, SafetensorError) as error:
        raise ConceptLabError(
            f"{folder} holds no dictionary that can be read ({type(error).__name__}); it needs cfg.json and "
            "sae_weights.safetensors as `save_sae` writes them."
        ) from None
    if cfg.architecture not in ARCHITECTURES:
        raise ConceptLabError(f"Unknown architecture {cfg.architecture!r}; known are {', '.join(ARCHITECTURES)}.")
    sae = ARCHITECTURES[cfg.architecture](cfg)
    wrong = [n for n, p in sae.named_parameters() if n not in tensors or tensors[n].shape != p.shape]
    if wrong:
        raise ConceptLabError(f"{folder}: {wrong[0]} is missing or not of the shape that cfg.json states.")
    sae.load_state_dict(tensors)
    return sae.requires_grad_(False)
