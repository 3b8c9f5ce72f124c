"""The read side: what the MLPs behind an edited feature read of it is taken out of their gates and up projections.

    W <- W - c (W q) q^T     for `up_proj` and `gate_proj` of the layers behind the feature's, q = gain * d of norm 1

`d` is what a feature of the chosen PISCES edit writes to the residual stream; behind the norm of a later MLP it is
`gain * d`. c = 1 takes the reading out, c = 2 turns it round. PISCES changes what is written; this, what is read of it.
`read_side+pisces` does both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import NotPossible
from ...data import Concept
from ...edits import LowRank, WeightEdit
from ...models import LanguageModel
from ..method import Method
from ..pisces.features import by_layer

if TYPE_CHECKING:
    from ..shared import Shared


@dataclass(frozen=True)
class ReadSideConfig:
    """How much of the reading goes, and whether the write side goes as well."""

    c: float = 1.0  # 1 takes it out, 2 turns it round
    with_pisces: str = "no"  # or "yes"


@torch.no_grad()
def read_side_edit(lm: LanguageModel, directions: dict[int, Float[Tensor, "k d_model"]], c: float) -> WeightEdit:
    """`directions`: layer -> what is written there; the MLPs of later layers lose its reading.

    Raises NotPossible where there is no later layer.
    """
    changes: dict[str, LowRank] = {}
    for layer in range(min(directions, default=0) + 1, lm.n_layers):
        written = torch.cat([d for x, d in directions.items() if x < layer]).float() * lm.pre_mlp_gain(layer).float()
        Q, _ = torch.linalg.qr(written.T)  # [d_model, k]: an orthonormal basis of what may be read
        for part in ("gate_proj", "up_proj"):
            name = lm.down_proj_name(layer).replace("down_proj", part)
            weight = lm.parameters()[name].detach().float()
            changes[name] = LowRank(-c * weight @ Q, Q.T.contiguous())
    if not changes:
        raise NotPossible("The features lie in the last layer, and no later one reads what they write.")
    return WeightEdit.of(lm, changes, {"method": "read side", "c": c})


def fit_read_side(lm: LanguageModel, concept: Concept, config: ReadSideConfig, shared: Shared) -> WeightEdit:
    """The features of the chosen PISCES edit, taken out of what later layers read."""
    directions = {}
    for layer, features in by_layer(lm, shared.dictionaries, shared.edited).items():
        written = shared.dictionaries[layer].residual_directions(lm)
        directions[layer] = written[[f.index for f in features]]
    edit = read_side_edit(lm, directions, config.c)
    return edit + shared.chosen("pisces").edit if config.with_pisces == "yes" else edit


READ_FACTORS = tuple(0.25 * i for i in range(1, 13))
READ_SIDE = Method(
    "read_side", "localised", "ours: directional ablation of PISCES' features where later layers read them",
    ReadSideConfig(), fit_read_side, {"c": READ_FACTORS}, ("pisces",), "1 s after PISCES",
)  # fmt: skip
READ_SIDE_PISCES = Method(
    "read_side+pisces", "combination", "ours: the same on top of the chosen PISCES edit",
    ReadSideConfig(with_pisces="yes"), fit_read_side, {"c": READ_FACTORS}, ("pisces",), "1 s after PISCES",
)  # fmt: skip
