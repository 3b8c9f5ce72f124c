"""Random edits to compare an edit with: of the same norms, in the same or in other columns."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..core import ConceptLabError
from .kinds import Dense, Kind, Rows
from .weight_edit import WeightEdit


def random_norm_edit(like: WeightEdit, seed: int = 0) -> WeightEdit:
    """A control: Gaussian changes with the norms of `like`, on as many columns of each weight, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    elsewhere = {}
    for name, change in like.changes.items():
        delta = change.dense()
        if isinstance(change, Rows):
            rows = torch.randperm(len(delta), generator=generator)[: len(change.index.unique())]
            elsewhere[name] = Rows(rows, torch.ones(len(rows), delta.shape[1]).to(delta), change.n_rows)
        else:
            columns = torch.randperm(delta.shape[1], generator=generator)[: int((delta.abs().amax(0) > 0).sum())]
            mask = torch.zeros_like(delta)
            mask[:, columns] = 1.0
            elsewhere[name] = Dense(mask)
    edit = match_norms(random_like(replace(like, changes=elsewhere), seed), like)
    return replace(edit, info={"control": "random edit of equal norm, other rows", "seed": seed})


def random_direction_edit(like: WeightEdit, seed: int = 0) -> WeightEdit:
    """A control: Gaussian changes of the same weights *and columns* with the norms of `like`.

    It keeps the rows, so it shows how much of an edit's selectivity is in the neurons that it goes through, whatever
    they are made to write.
    """
    return random_like(like, seed)


def random_like(edit: WeightEdit, seed: int = 0) -> WeightEdit:
    """A control: Gaussian changes of the same weights with the same Frobenius norm each, on the same columns (or rows).

    Norms are per weight, hence per layer.
    """
    generator = torch.Generator().manual_seed(seed)
    changes: dict[str, Kind] = {}
    for name, change in edit.changes.items():
        if isinstance(change, Rows):
            index, which = change.index.unique(return_inverse=True)
            delta = change.delta.new_zeros(len(index), change.shape[1]).index_add_(0, which, change.delta)
            changes[name] = Rows(index, _noise(delta, generator), change.n_rows)
        else:
            delta = change.dense()
            used = delta.abs().amax(0, keepdim=True) > 0
            changes[name] = Dense(_noise(delta, generator, used))
    return replace(edit, changes=changes, info={"control": "random edit of equal norm", "seed": seed})


def _noise(delta: Tensor, generator: torch.Generator, used: Tensor | float = 1.0) -> Tensor:
    noise = torch.randn(delta.shape, generator=generator).to(delta) * used
    return noise * (delta.norm() / noise.norm().clamp_min(1e-30))


def match_norms(edit: WeightEdit, like: WeightEdit) -> WeightEdit:
    """`edit` with every weight's change scaled to the Frobenius norm that it has in `like`.

    For controls of equal size. Raises ConceptLabError when they do not change the same weights.
    """
    if edit.changes.keys() != like.changes.keys():
        raise ConceptLabError(
            "Norms can be matched between edits of the same weights only; these change different ones."
        )
    changes = {}
    for name, change in edit.changes.items():
        norm = float(change.dense().norm())
        changes[name] = change.scaled(float(like.changes[name].dense().norm()) / norm if norm else 1.0)
    return replace(edit, changes=changes, info=edit.info | {"norms": "matched"})
