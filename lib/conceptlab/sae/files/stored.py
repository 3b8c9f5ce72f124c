"""A dictionary as a file describes it, in our names: what every reader returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core import ConceptLabError


@dataclass(frozen=True)
class Stored:
    """A dictionary as a file describes it, for raw activations (input scaling folded in)."""

    architecture: str  # a name in ARCHITECTURES, or "transcoder"
    tensors: dict[str, Tensor]  # W_enc, W_dec, b_dec, and b_enc or b_gate, b_mag, r_mag; threshold; W_skip
    d_in: int
    d_sae: int
    centred: bool  # whether `encode` subtracts b_dec first
    k: int = 0  # active features per token; 0 where it varies
    model_name: str = ""  # "" where the files do not say
    hook_name: str = ""  # the place that is read, as TransformerLens or transformers call it
    hook_layer: int | None = None  # 0-based; None where neither files nor names say
    hook_name_out: str = ""  # the place that is written, where it is another one


def as_transcoder(path: str, stored: Stored) -> Stored:
    """A dictionary that writes another place than it reads. Raises ConceptLabError for one that we have no form for."""
    if stored.architecture not in ("relu", "jumprelu"):
        raise ConceptLabError(f"{path} is a {stored.architecture} transcoder; those with ReLU or JumpReLU can be read.")
    if stored.centred:
        raise ConceptLabError(
            f"{path} is a transcoder that subtracts its decoder's bias from the input; not supported."
        )
    tensors = {"threshold": torch.zeros(stored.d_sae), **stored.tensors}
    return Stored(**{**vars(stored), "architecture": "transcoder", "tensors": tensors})


def either(tensors: dict[str, Tensor], *names: str, default: Tensor | None = None) -> Tensor:
    """The first of several tensors that is there. Raises KeyError where none is and there is no default."""
    for name in names:
        if name in tensors:
            return tensors[name]
    if default is None:
        raise KeyError(names[0])
    return default


def matrix_shape(tensor: Tensor, name: str) -> tuple[int, int]:
    """The two sizes of a matrix. Raises KeyError for anything else."""
    if tensor.ndim != 2:
        raise KeyError(name)
    return tensor.shape[0], tensor.shape[1]


def only_tensors(tensors: dict[str, Tensor], known: set[str], path: str) -> None:
    """Raise ConceptLabError for tensors that are not known: what they do would be left out silently."""
    if other := sorted(set(tensors) - known):
        raise ConceptLabError(
            f"{path} holds a tensor {other[0]!r}, which is no part of that layout; use a dictionary without it."
        )


def unit_rows(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same dictionary with unit decoder rows, their norms moved into encoder and bias (not into thresholds)."""
    norm = tensors["W_dec"].norm(dim=1)
    norm = torch.where(norm > 0, norm, 1.0)
    return tensors | {
        "W_dec": tensors["W_dec"] / norm[:, None],
        "W_enc": tensors["W_enc"] * norm,
        "b_enc": tensors["b_enc"] * norm,
    }
