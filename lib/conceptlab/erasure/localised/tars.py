"""TARS: the value vectors that lie closest to a direction of the concept are replaced by its reverse.

    c_l = mean state at the concept's words - mean state elsewhere, of norm 1
    v_j <- -s |v_j| c_l   for the n value vectors with the largest |cos(v_j, c_l)|, `s` the sign of that cosine

After targeted angular reversal of weights (arXiv 2412.10257), from its abstract: "refined" concept vectors there come
from a procedure that was not read; here the direction is a difference of means of the state behind each layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ...data import Concept
from ...edits import WeightEdit, value_edit
from ...models import LanguageModel
from ..method import Axes, Method
from .keys import mean_states

if TYPE_CHECKING:
    from ..shared import Shared


@dataclass(frozen=True)
class TarsConfig:
    """How many vectors are reversed."""

    n: int = 50


@torch.no_grad()
def reversed_vectors(lm: LanguageModel, directions: Float[Tensor, "layers d_model"], n: int) -> WeightEdit:
    """The `n` value vectors with the largest |cosine| to their layer's direction (of norm 1), reversed."""
    size, along = [], []
    for layer, c in enumerate(directions):
        rows = lm.value_vectors(layer).float()
        norms = rows.norm(dim=1)
        size.append(norms)
        along.append(rows @ c / norms.clamp_min(1e-9))
    cosines, norms = torch.stack(along), torch.stack(size)
    chosen = cosines.abs().flatten().argsort(descending=True, stable=True)[:n]
    edit = WeightEdit.of(lm, {}, {"method": "tars", "n": int(n)})
    for layer in (chosen // lm.d_mlp).unique().tolist():
        neurons = (chosen[chosen // lm.d_mlp == layer] % lm.d_mlp).sort().values
        wanted = -(cosines[layer, neurons].sign() * norms[layer, neurons])[:, None] * directions[layer]
        delta = wanted - lm.value_vectors(layer)[neurons].float()
        edit = edit + value_edit(lm, layer, neurons.tolist(), delta)
    return WeightEdit.of(lm, edit.changes, {"method": "tars", "n": int(n)})


def fit_tars(lm: LanguageModel, concept: Concept, config: TarsConfig, shared: Shared) -> WeightEdit:
    """Directions once, from the texts to forget and to keep."""

    def directions() -> Tensor:
        own, other = mean_states(lm, shared.forget, shared.keep, concept.words)
        return torch.nn.functional.normalize(own - other, dim=1)

    return reversed_vectors(lm, shared.made("tars", directions), config.n)


def tars_axes(axes: Axes, shared: Shared) -> Axes:
    """Counts that the model has neurons for."""
    return {"n": [n for n in axes["n"] if n <= shared.lm.n_layers * shared.lm.d_mlp]}


TARS = Method(
    "tars", "localised", "targeted angular reversal of weights (arXiv 2412.10257), from its abstract", TarsConfig(),
    fit_tars, {"n": (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000)}, ("forget", "keep"), "20 s of reading",
    axes=tars_axes,
)  # fmt: skip
