"""Distilling a clamp into the weights: the down projection learns to write what a hook would make of its output.

At run time a hook can clamp features of a dictionary: `x -> x + sum_f (-mu M_f - a_f(x)) d_f` wherever `a_f(x) > 0`,
`M_f` the largest activation on the concept. The down projection is linear in its keys, so the weights that imitate the
hook best are a ridge regression, without training:

    D = argmin sum over the concept's tokens |D n - r(n)|^2 + weight sum elsewhere |D n|^2 + ridge |D|^2

with `r(n)` what the hook adds at that token. Elsewhere the target is the original: 0. The literature distils by
gradient on the hooked model's predictions (UNDO and others); layer by layer the optimum is known. The control that
distils nothing of the concept is `distil_shuffled`: the same additions, dealt out to other tokens of its texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import NotPossible
from ...data import Concept
from ...edits import Dense, WeightEdit
from ...models import LanguageModel
from ...sae import SAE
from ..method import Method
from ..pisces.edit import columns_for
from ..pisces.features import by_layer

if TYPE_CHECKING:
    from ..shared import Shared


@dataclass(frozen=True)
class DistilConfig:
    """The clamp, and how it is written into the weights."""

    mu: float = 2.0  # where features are clamped, in largest activations on the concept, turned round
    weight: float = 1.0  # of a token elsewhere
    ridge: float = 1e-2  # of the keys' mean square
    shuffled: str = "no"  # or "yes": the control


@torch.no_grad()
def clamp_additions(
    sae: SAE, outputs: Float[Tensor, "n d_model"], index: list[int], mu: float, largest: Float[Tensor, " k"]
) -> Float[Tensor, "n d_in"]:
    """What the hook adds to each output, in the space of the dictionary."""
    present = sae.strengths(outputs.to(sae.W_dec), torch.tensor(index))
    return ((-mu * largest - present) * (present > 0)) @ sae.directions(torch.tensor(index))


@torch.no_grad()
def distilled(
    own: Float[Tensor, "n d_mlp"],
    additions: Float[Tensor, "n d"],
    other: Float[Tensor, "m d_mlp"],
    weight: float,
    ridge: float,
) -> Float[Tensor, "d d_mlp"]:
    """The regression above."""
    own, other, additions = own.double(), other.double(), additions.double()
    gram = own.T @ own + weight * other.T @ other
    gram += ridge * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
    return torch.linalg.solve(gram, own.T @ additions).T.float()


def fit_distil(lm: LanguageModel, concept: Concept, config: DistilConfig, shared: Shared) -> WeightEdit:
    """The clamp of the features that the chosen PISCES edit changes, layer by layer."""
    changes: dict[str, Dense] = {}
    own = shared.evidence.own
    for layer, features in by_layer(lm, shared.dictionaries, shared.edited).items():
        sae, groups = shared.dictionaries[layer], shared.evidence.neurons[layer]
        if sae.cfg.hook_name != lm.mlp_output(layer):
            raise NotPossible("The clamp is distilled from dictionaries of what the down projection writes.")
        keys, index = torch.cat(groups[:own]), [f.index for f in features]
        outputs = keys @ lm.down_proj(layer).float()
        largest = sae.strengths(outputs.to(sae.W_dec), torch.tensor(index)).amax(0)
        added = clamp_additions(sae, outputs, index, config.mu, largest).float()
        if config.shuffled == "yes":
            added = added[torch.randperm(len(added), generator=torch.Generator().manual_seed(shared.seed))]
        change = distilled(keys, added, torch.cat(groups[own:]), config.weight, config.ridge)
        changes[lm.down_proj_name(layer)] = Dense(columns_for(lm, sae, change.T.contiguous()))
    info = {"method": "distil", "mu": config.mu, "shuffled": config.shuffled}
    return WeightEdit.of(lm, changes, info)


GRID = {"mu": (0.5, 1.0, 2.0, 4.0, 8.0, 16.0), "weight": (10.0, 1.0)}
DISTIL = Method(
    "distil", "localised", "ours: a clamp of PISCES' features distilled into the weights by regression", DistilConfig(),
    fit_distil, GRID, ("pisces",), "1 s a layer",
)  # fmt: skip
DISTIL_SHUFFLED = Method(
    "distil_shuffled", "control", "ours: the clamp's additions dealt out to other tokens of the concept's texts",
    DistilConfig(shuffled="yes"), fit_distil, GRID, ("pisces",), "1 s a layer",
)  # fmt: skip
