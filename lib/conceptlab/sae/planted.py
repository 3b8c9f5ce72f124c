"""A world whose features are known: sparse features in superposition, and what share of them a dictionary finds.

`x = f @ directions (+ noise)` with more directions than dimensions, after the toy of Elhage et al. 2022 ("Toy models of
superposition"), here with the directions given rather than learnt.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core import ConceptLabError


@dataclass(frozen=True)
class PlantedConfig:
    """A world of sparse, non-negative features. The same configuration has the same directions."""

    d_in: int = 32  # dimensions
    n_features: int = 128  # planted directions; more than `d_in` is superposition
    active: float = 4.0  # independent features per token, on average
    zipf: float = 0.5  # feature i occurs in proportion to (i + 1) ** -zipf; 0: all equally often
    low: float = 0.5  # strengths are uniform between `low` ...
    high: float = 1.5  # ... and `high`
    children: int = 0  # the last `children` features occur only with a parent: the j-th of them with feature j
    child_share: float = 0.3  # share of a parent's tokens on which its child occurs too
    noise: float = 0.0  # standard deviation of Gaussian noise, per dimension
    seed: int = 0  # of the directions


@dataclass(frozen=True)
class Planted:
    """Tokens of such a world, and the truth about them."""

    x: Float[Tensor, "n d_in"]
    features: Float[Tensor, "n n_features"]  # strengths, 0 where a feature is absent
    directions: Float[Tensor, "n_features d_in"]  # unit rows
    frequencies: Float[Tensor, " n_features"]  # chance that a feature occurs on a token


def plant(cfg: PlantedConfig, n_tokens: int, seed: int = 1) -> Planted:
    """Draw `n_tokens` tokens. Other seeds give other tokens of the same world: held-out data.

    Raises ConceptLabError when the features asked for do not fit.
    """
    free = cfg.n_features - cfg.children
    if not 0 <= cfg.children <= free:
        raise ConceptLabError(f"{cfg.children} children need as many parents; set children to {cfg.n_features // 2}.")
    weights = torch.arange(1, free + 1, dtype=torch.float64) ** -cfg.zipf
    frequencies = (cfg.active * weights / weights.sum()).float()
    if float(frequencies[0]) > 1:
        raise ConceptLabError(f"{cfg.active} active of {free} features: the first would occur more than always.")
    frequencies = torch.cat([frequencies, cfg.child_share * frequencies[: cfg.children]])
    # far from small seeds: a dictionary that starts from randn with the same seed would start from the truth
    world = torch.Generator().manual_seed(1_000_003 + cfg.seed)
    directions = torch.randn(cfg.n_features, cfg.d_in, generator=world)
    directions /= directions.norm(dim=1, keepdim=True)
    draw = torch.Generator().manual_seed(seed)
    occurs = torch.rand(n_tokens, free, generator=draw) < frequencies[:free]
    with_parent = torch.rand(n_tokens, cfg.children, generator=draw) < cfg.child_share
    occurs = torch.cat([occurs, occurs[:, : cfg.children] & with_parent], 1)
    strength = cfg.low + (cfg.high - cfg.low) * torch.rand(n_tokens, cfg.n_features, generator=draw)
    features = strength * occurs
    x = features @ directions + cfg.noise * torch.randn(n_tokens, cfg.d_in, generator=draw)
    return Planted(x, features, directions, frequencies)


def cosines(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Cosine of every row of `a` with every row of `b`; 0 where a row is zero."""
    unit = [x / x.norm(dim=1, keepdim=True).clamp_min(1e-12) for x in (a, b)]
    return unit[0] @ unit[1].T


def max_cosines(truth: Float[Tensor, "n d"], found: Float[Tensor, "m d"]) -> Float[Tensor, " n"]:
    """Cosine of each planted direction with its nearest found one. Their mean is the *mean max cosine similarity*.

    One found direction may serve several planted ones here; `recovered` allows it only one.
    """
    return cosines(truth, found).amax(1)


def recovered(truth: Float[Tensor, "n d"], found: Float[Tensor, "m d"], least: float = 0.9) -> Bool[Tensor, " n"]:
    """Which planted directions have a found direction of their own at cosine `least` or more; the mean is the recall.

    One-to-one and greedy: the pair with the largest cosine is matched first, both leave, and so on. Where every found
    direction is near at most one planted direction this is the largest possible matching.
    """
    near = cosines(truth, found)
    out = torch.zeros(len(truth), dtype=torch.bool)
    rows, columns = (near >= least).nonzero(as_tuple=True)
    taken: set[int] = set()
    for i in near[rows, columns].argsort(descending=True).tolist():
        row, column = int(rows[i]), int(columns[i])
        if not out[row] and column not in taken:
            out[row] = True
            taken.add(column)
    return out
