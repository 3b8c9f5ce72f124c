"""Where an edit moves the weights, and how much of the move lies in a few directions."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError
from ..edits import Dense, WeightEdit
from ..models import LanguageModel


def moved_by_layer(lm: LanguageModel, edit: WeightEdit) -> Float[Tensor, "layers 3"]:
    """Per layer the norm of the change over the norm of the weights: attention, into the MLP, value vectors."""
    named, found = lm.parameters(), torch.zeros(lm.n_layers, 3, 2)
    for layer in range(lm.n_layers):
        down = lm.down_proj_name(layer)
        block = down.removesuffix("mlp.down_proj.weight")
        for name, weight in named.items():
            if not name.startswith(block) or weight.ndim < 2:
                continue
            kind = 2 if name == down else 1 if ".mlp." in name else 0
            found[layer, kind, 1] += weight.detach().float().square().sum().cpu()
            if name in edit.changes:
                found[layer, kind, 0] += edit.changes[name].dense().float().square().sum().cpu()
    return (found[..., 0] / found[..., 1].clamp_min(1e-30)).sqrt()


def concept_span(vectors: Float[Tensor, "n d_model"], k: int) -> Float[Tensor, "d_model k"]:
    """An orthonormal basis of the `k` strongest directions of some vectors (each brought to length 1 first)."""
    if not 1 <= k <= min(vectors.shape):
        raise ConceptLabError(f"A span of {tuple(vectors.shape)} vectors has 1 to {min(vectors.shape)} directions.")
    unit = vectors.float() / vectors.float().norm(dim=1, keepdim=True).clamp_min(1e-12)
    return torch.linalg.svd(unit, full_matrices=False)[2][:k].T


def in_span(lm: LanguageModel, edit: WeightEdit, span: Float[Tensor, "d_model k"]) -> float:
    """Share of an edit's squared change of value vectors that lies in `span`; `k / d_model` is what chance gives.

    The change is measured in the space of the residual stream (gains after the MLP included).
    """
    inside = total = 0.0
    for layer in range(lm.n_layers):
        change = edit.changes.get(lm.down_proj_name(layer))
        if change is not None:
            delta = change.dense().float() * lm.post_mlp_gain(layer).float()[:, None]
            inside += float((span.to(delta).T @ delta).square().sum())
            total += float(delta.square().sum())
    return inside / total if total else 0.0


def inside_span(lm: LanguageModel, edit: WeightEdit, span: Float[Tensor, "d_model k"]) -> WeightEdit:
    """The part of an edit that moves value vectors inside `span`, and nothing else."""
    changes = {}
    for layer in range(lm.n_layers):
        if (name := lm.down_proj_name(layer)) in edit.changes:
            gain = lm.post_mlp_gain(layer).float()[:, None]
            delta = edit.changes[name].dense().float() * gain
            inside = span.to(delta) @ (span.to(delta).T @ delta)
            changes[name] = Dense(torch.where(gain == 0, 0.0, inside / gain).to(edit.changes[name].dense()))
    return replace(edit, changes=changes, info=edit.info | {"part": "in the span"})


def outside_span(lm: LanguageModel, edit: WeightEdit, span: Float[Tensor, "d_model k"]) -> WeightEdit:
    """The edit without the part that `inside_span` keeps."""
    inside = inside_span(lm, edit, span).changes
    rest = {n: Dense(c.dense() - inside[n].dense()) if n in inside else c for n, c in edit.changes.items()}
    return replace(edit, changes=rest, info=edit.info | {"part": "outside the span"})


def random_span(d_model: int, k: int, seed: int = 0) -> Float[Tensor, "d_model k"]:
    """A control: as many random directions."""
    return torch.linalg.qr(torch.randn(d_model, k, generator=torch.Generator().manual_seed(seed)))[0]
