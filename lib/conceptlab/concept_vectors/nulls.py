"""What a coherence is worth: the same score for directions that encode nothing."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core import Interval, bootstrap
from ..models import LanguageModel, project
from .atlas import Atlas
from .coherence import coherence


def control_directions(
    values: Float[Tensor, "n d_model"], n: int = 1000, seed: int = 0
) -> dict[str, Float[Tensor, "m d_model"]]:
    """Three kinds of directions, at most `n` of each, from the least to the most like value vectors.

    `random` is Gaussian; `shuffled coordinates` are value vectors whose numbers changed places; `same covariance` is
    Gaussian with the covariance of the value vectors, so that it goes where they go but encodes nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    values = values.detach().float().cpu()
    some = values[torch.randperm(len(values), generator=generator)[:n]]
    order = torch.rand(some.shape, generator=generator).argsort(1)
    draws = torch.randn(some.shape, generator=generator)
    spread, basis = torch.linalg.eigh(values.T.cov())
    root = basis * spread.clamp_min(0).sqrt()
    return {"random": draws, "shuffled coordinates": some.gather(1, order), "same covariance": draws @ root.T}


def promoted_lists(
    lm: LanguageModel, directions: Float[Tensor, "n d_model"], vocab_ids: Int[Tensor, " m"] | None = None, k: int = 50
) -> Int[Tensor, "ends k"]:
    """The `k` most promoted tokens of both ends of every direction, end after end: `[2 n, k]`."""
    return project(lm, directions.to(lm.device), k, vocab_ids, cache=False).signed_ids().flatten(0, 1)


def coherence_limit(lm: LanguageModel, atlas: Atlas, n: int = 1000, level: float = 0.99, seed: int = 1) -> float:
    """The coherence below which a share `level` of the ends of random vectors stays, on the atlas' own tokens."""
    draws = torch.randn(n, lm.d_model, generator=torch.Generator().manual_seed(seed))
    scores = coherence(promoted_lists(lm, draws, atlas.vocab_ids), atlas.units, atlas.stem)
    return float(scores.quantile(level))


def share_above(scores: Float[Tensor, "*shape"], limit: float, n_resamples: int = 500, at_most: int = 5000) -> Interval:
    """Per cent of the scores above a limit, with the interval over vectors; of many scores an even sample is enough."""
    flat = scores.flatten()
    part = flat[:: max(1, -(-len(flat) // at_most))]
    return bootstrap(100 * (part > limit).float(), n_resamples, over="vector ends")


def layer_shares(atlas: Atlas, limit: float, n_resamples: int = 300) -> list[Interval]:
    """Per layer of the atlas: per cent of vector ends that are more coherent than `limit`."""
    ends = atlas.coherence.view(len(atlas.layers), -1)
    return [share_above(layer, limit, n_resamples) for layer in ends]


def readable_layers(shares: list[Interval], part: float = 0.5) -> range:
    """The run of layers around the peak in which the share is at least `part` of the peak's."""
    values = [share.value for share in shares]
    first = last = values.index(max(values))
    while first > 0 and values[first - 1] >= part * max(values):
        first -= 1
    while last + 1 < len(values) and values[last + 1] >= part * max(values):
        last += 1
    return range(first, last + 1)
