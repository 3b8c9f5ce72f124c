"""Protected remap: at the concept's words, what early layers write is sent to what they write at any word.

    R = strength (mean output elsewhere - W k)   for each key k, the mean activation at one of the concept's words
    D^T = P K^T (K P K^T + ridge I)^-1 R,        P the projection on the null space of the keys to keep

ROCR (arXiv 2506.07795) redirects a subject to a harmless one in closed form, at the last token of the subject in
early layers, inside the null space of general keys; the same closed form is published as ZeroUnlearn. Here the harmless
place is the mean output of the layer at other words, and the neighbour's keys are among those to keep. It chooses what
to change by the *keys*. The null `remap_random_targets` sends the same keys as far in random directions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from ...data import Concept
from ...edits import LowRank, WeightEdit
from ...models import LanguageModel
from ..method import Method
from .keys import Keys, early_layers, shared_keys
from .solve import key_update, null_space

if TYPE_CHECKING:
    from ..shared import Shared


@dataclass(frozen=True)
class RemapConfig:
    """Which layers, how far, and how strictly other keys are protected."""

    strength: float = 1.0  # 1: to the mean, 2: through it to the other side
    leak: float = 0.01  # share of the mean square of the keys to keep that the null space may hold; 0: none
    n_layers: int = 3  # of the early layers, from the first
    ridge: float = 0.1  # of the keys' mean squared length
    targets: str = "mean"  # or "random": the null


@torch.no_grad()
def remap_edit(lm: LanguageModel, keys: dict[int, Keys], config: RemapConfig, projections: dict, seed=0) -> WeightEdit:
    """The edit of some layers, from their keys and the projections on their null spaces."""
    generator = torch.Generator().manual_seed(seed)
    changes: dict[str, LowRank] = {}
    for layer, found in keys.items():
        rows = lm.down_proj(layer).float()
        wanted = config.strength * (found.kept.mean(0) @ rows - found.own @ rows)
        if config.targets == "random":
            drawn = torch.randn(wanted.shape, generator=generator).to(wanted)
            wanted = drawn / drawn.norm(dim=1, keepdim=True) * wanted.norm(dim=1, keepdim=True)
        changes[lm.down_proj_name(layer)] = key_update(found.own, wanted, projections[layer], config.ridge)
    return WeightEdit.of(lm, changes, {"method": "remap", "targets": config.targets, "layers": list(keys)})


def fit_remap(lm: LanguageModel, concept: Concept, config: RemapConfig, shared: Shared) -> WeightEdit:
    """Keys and projections once; then a solve of a few dozen rows per layer."""
    layers = early_layers(lm.n_layers)
    keys = shared_keys(shared, layers)
    chosen = layers[: int(config.n_layers)]
    projections = {
        x: shared.made(("null space", x, config.leak), partial(null_space, keys[x].moment, config.leak)) for x in chosen
    }
    return remap_edit(lm, {x: keys[x] for x in chosen}, config, projections, shared.seed)


@dataclass(frozen=True)
class RandomTargetsConfig:
    """Whose keys, strength and layers."""

    like: str = "rocr"


def fit_random_targets(lm: LanguageModel, concept: Concept, config: RandomTargetsConfig, shared: Shared) -> WeightEdit:
    """The chosen remap's keys, sent as far in random directions."""
    return fit_remap(lm, concept, replace(shared.chosen(config.like).config, targets="random"), shared)


ROCR = Method(
    "rocr", "localised", "ROCR (arXiv 2506.07795) and ZeroUnlearn: redirect in the null space, neighbour protected",
    RemapConfig(), fit_remap, {"n_layers": (1, 3), "strength": (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)}, ("forget", "keep"),
    "reading 20 s, the solve 1 s a layer",
)  # fmt: skip
RANDOM_TARGETS = Method(
    "random_targets", "control", "ours: the chosen remap's keys sent as far in random directions",
    RandomTargetsConfig(), fit_random_targets, needs=("rocr",),
)  # fmt: skip
