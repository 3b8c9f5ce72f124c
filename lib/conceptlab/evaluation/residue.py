"""What is left in the weights: do the vectors that carried a concept still carry it?

A model that stopped saying something may still hold it. These measures never ask the model (ConceptVectors,
arXiv 2406.11614, intrinsic evaluation): they compare value vectors before and after. `before = trace(lm, places)`,
then inside any intervention `after = trace(lm, places)`, then `residue(before, after)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError, Interval, bootstrap
from ..models import LanguageModel, project


@dataclass(frozen=True)
class Trace:
    """Some value vectors as they are now, and the tokens that each promotes most."""

    values: Float[Tensor, "n d_model"]
    top: tuple[frozenset[int], ...]


@dataclass(frozen=True)
class Residue:
    """Each number is a mean over vectors with its interval; an untouched vector has 1, 1 and 0."""

    jaccard: Interval  # overlap of the strongest tokens before and after
    cosine: Interval  # 0 by convention for a vector that was set to zero
    l2: Interval  # distance, in the residual stream's units


def trace(lm: LanguageModel, places: Sequence[tuple[int, int, int]], k: int = 200) -> Trace:
    """The value vectors at `places` (layer, neuron, sign) and the `k` strongest tokens at their signed ends.

    Tokens are read with the unembedding as it is now, as in the reference. Raises when the list is empty.
    """
    if not places:
        raise ConceptLabError("A trace needs at least one place (layer, neuron, sign); the list was empty.")
    values = torch.stack([sign * lm.value_vectors(layer)[neuron] for layer, neuron, sign in places])
    ids = project(lm, values, k, cache=False).top_ids.tolist()
    return Trace(values.float().cpu(), tuple(map(frozenset, ids)))


def residue(before: Trace, after: Trace) -> Residue:
    """Means over the vectors, with intervals."""
    rows = vector_residue(before, after)
    return Residue(**{name: bootstrap([row[name] for row in rows]) for name in Residue.__dataclass_fields__})


def vector_residue(before: Trace, after: Trace) -> list[dict[str, float]]:
    """Per vector: `jaccard` of the strongest tokens, `cosine` and `l2`."""
    rows = []
    for a, b, s, t in zip(before.values, after.values, before.top, after.top, strict=True):
        jaccard = len(s & t) / len(s | t) if float(b.norm()) > 0 else 0.0  # a zero vector promotes nothing
        rows.append({"jaccard": jaccard, "cosine": float(F.cosine_similarity(a, b, 0)), "l2": float((a - b).norm())})
    return rows


@torch.no_grad()
def write_energy(
    lm: LanguageModel,
    layer: int,
    directions: Float[Tensor, "k d_model"],
    neuron_signs: Float[Tensor, " d_mlp"] | None = None,
    rows: Float[Tensor, "d_mlp d_model"] | None = None,
) -> Float[Tensor, " k"]:
    """How strongly a layer can write along each direction: `sum_j relu(sigma_j w_j . d)^2` over its rows `w_j`.

    sigma are the neurons' usual signs on the concept (1 without `neuron_signs`). Give `-d` for a feature of sign -1.
    `rows`: what the neurons write in the space of the directions, where that lies behind a norm (`pisces.rows_for`).
    The ratio of after to before is the share of a feature's energy that an edit left: 0 where every row that wrote it
    is gone or turned round, more than 1 where it grew.
    """
    rows = (lm.down_proj(layer) if rows is None else rows).float()
    sigma = torch.ones(len(rows)) if neuron_signs is None else neuron_signs
    return (sigma.to(rows)[:, None] * (rows @ directions.to(rows).T)).clamp_min(0).square().sum(0).cpu()
