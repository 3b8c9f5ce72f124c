"""Random edits to compare an edit with: of the same norms, in the same or in other columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core import ConceptLabError
from ..models import LanguageModel
from .kinds import Dense, Kind, LowRank, Rows
from .weight_edit import WeightEdit


def random_norm_edit(like: WeightEdit, seed: int = 0) -> WeightEdit:
    """A control: Gaussian changes with the norms of `like`, on as many columns of each weight, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    elsewhere: dict[str, Kind] = {}
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


def permuted_neurons(
    lm: LanguageModel, edit: WeightEdit, activity: Mapping[int, Float[Tensor, " d_mlp"]], seed: int = 0
) -> WeightEdit:
    """A control: the same changes of value vectors, at other neurons of the same layer that are as active.

    If an edit is precise because of the neurons that it goes through, this one is not, though values, norms and
    number agree. `activity[layer]`: mean |activation| of each neuron on text of the caller's choice. In the order of
    activity, edited neurons take turns (drawn with `seed`), and each takes the nearest rank that is neither edited nor
    taken. Norms of value vectors' changes are kept, in the residual stream's units as in the weights'. The null of
    permuted neurons is ours; that of activity-matched random neurons is common in work on neuron ablation.
    Raises ConceptLabError for edits of other weights than down projections, for a layer without activity, and where
    fewer neurons are left than are edited.
    """
    layers = {lm.down_proj_name(layer): layer for layer in range(lm.n_layers)}
    generator = torch.Generator().manual_seed(seed)
    changes: dict[str, Kind] = {}
    moves = {}
    for name, change in edit.changes.items():
        if name not in layers:
            raise ConceptLabError(f"Neurons are permuted in edits of down projections; this one changes {name}.")
        layer = layers[name]
        if layer not in activity or tuple(activity[layer].shape) != (lm.d_mlp,):
            raise ConceptLabError(f"Layer {layer} is edited; give the activity of its {lm.d_mlp} neurons as [d_mlp].")
        delta = change.dense()
        edited = (delta.abs().amax(0) > 0).nonzero()[:, 0].cpu()
        others = of_equal_activity(edited, activity[layer].detach().float().cpu(), generator, layer)
        by_neuron = change.right if isinstance(change, LowRank) else delta  # a column per neuron
        moved = torch.zeros_like(by_neuron)
        moved[:, others.to(moved.device)] = by_neuron[:, edited.to(moved.device)]
        changes[name] = LowRank(change.left, moved) if isinstance(change, LowRank) else Dense(moved)
        moves[str(layer)] = [edited.tolist(), others.tolist()]
    return replace(edit, changes=changes, info={"control": "permuted neurons", "seed": seed, "moves": moves})


def of_equal_activity(
    edited: Int[Tensor, " n"], activity: Float[Tensor, " d_mlp"], generator: torch.Generator, layer: int
) -> Int[Tensor, " n"]:
    """For each edited neuron another, none twice and none of the edited, of the nearest rank of activity."""
    if not bool(torch.isfinite(activity).all()):
        raise ConceptLabError(f"The activity of layer {layer} holds NaN or infinite numbers; measure it again.")
    if 2 * len(edited) > len(activity):
        raise ConceptLabError(
            f"{len(edited)} of {len(activity)} neurons of layer {layer} are edited, and fewer are left to take their "
            "place; permute the neurons of a sparser edit."
        )
    rank = torch.empty(len(activity), dtype=torch.long)
    rank[activity.argsort(stable=True)] = torch.arange(len(activity))
    at = rank.argsort()  # rank -> neuron
    free = torch.ones(len(activity), dtype=torch.bool)
    free[rank[edited]] = False
    found = torch.empty_like(edited)
    for i in torch.randperm(len(edited), generator=generator).tolist():
        places = free.nonzero()[:, 0]
        distance = (places - rank[edited[i]]).abs()
        nearest = places[distance == distance.min()]  # at most one above and one below
        place = nearest[int(torch.randint(len(nearest), (1,), generator=generator))]
        free[place] = False
        found[i] = at[place]
    return found


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
