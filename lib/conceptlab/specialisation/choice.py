"""Sets of value vectors: those of a concept, and the sets they are compared with. A set is a mask `[layers, d_mlp]`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core import ConceptLabError, NotPossible
from ..edits import of_equal_activity


def most_specific(
    scores: Float[Tensor, "layers d_mlp"], share: float, per_layer: bool = False
) -> Bool[Tensor, "layers d_mlp"]:
    """The `share` of all value vectors with the highest scores, of all layers together or of each layer alone.

    At least one is chosen (`per_layer`: one per layer). Raises ConceptLabError unless 0 < share <= 1.
    """
    if not 0 < share <= 1:
        raise ConceptLabError(f"A share lies above 0 and is at most 1; got {share:g}.")
    rows = scores if per_layer else scores.reshape(1, -1)
    k = max(1, round(share * rows.shape[1]))
    mask = torch.zeros_like(rows, dtype=torch.bool).scatter_(1, rows.topk(k).indices, True)
    return mask.view(scores.shape)


def random_neurons(mask: Bool[Tensor, "layers d_mlp"], seed: int = 0) -> Bool[Tensor, "layers d_mlp"]:
    """A control: as many value vectors of every layer, drawn at random from those that are not chosen."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.zeros_like(mask)
    for layer, row in enumerate(mask):
        free, n = (~row).nonzero()[:, 0], int(row.sum())
        if n > len(free):
            raise NotPossible(f"{n} of {len(row)} value vectors of layer {layer} are chosen; too few others are left.")
        drawn[layer, free[torch.randperm(len(free), generator=generator)[:n]]] = True
    return drawn


def equally_active(
    mask: Bool[Tensor, "layers d_mlp"], activity: Float[Tensor, "layers d_mlp"], seed: int = 0
) -> Bool[Tensor, "layers d_mlp"]:
    """The control that decides: per chosen vector another one of its layer that is as active on the concept's texts.

    `activity`: mean |m| on these texts. If the cost of masking comes from how much is written there, whatever it says,
    this set costs as much. Raises NotPossible where more than half of a layer is chosen.
    """
    generator = torch.Generator().manual_seed(seed)
    found = torch.zeros_like(mask)
    for layer, row in enumerate(mask):
        chosen = row.nonzero()[:, 0]
        if 2 * len(chosen) > len(row):
            raise NotPossible(f"{len(chosen)} of {len(row)} value vectors of layer {layer} are chosen: no match left.")
        if len(chosen):
            found[layer, of_equal_activity(chosen, activity[layer].float(), generator, layer)] = True
    return found


def overlap(masks: Sequence[Bool[Tensor, "layers d_mlp"]]) -> Float[Tensor, "n n"]:
    """Share of set i that is in set j too; for sets of equal size symmetric. By chance: the share that is chosen."""
    flat = torch.stack([m.flatten() for m in masks]).double()
    return (flat @ flat.T) / flat.sum(1, keepdim=True).clamp_min(1)


def shuffled_groups(sizes: Sequence[int], seed: int = 0) -> list[list[int]]:
    """A control: indices of all questions dealt anew into groups of the given sizes, whatever they ask about."""
    order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(seed)).tolist()
    ends = torch.tensor(list(sizes)).cumsum(0).tolist()
    return [sorted(order[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
