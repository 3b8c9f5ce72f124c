"""The course's own answers to the exercises of notebooks 08 and 09; some of them are functions of the library."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from ...directions import mean_difference
from ...specialisation import differential, overlap, without_words


def scores(own: Tensor, others: Tensor) -> Tensor:
    """Mean absolute coefficient on the concept's questions minus that on the others', `[layers, d_mlp]`."""
    return differential(own.abs(), others.abs())


def nearest_in_rank(chosen: Tensor, activity: Tensor) -> Tensor:
    """Per chosen neuron the free one that is nearest in rank by activity, `[k]`."""
    order = activity.argsort()
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    free = torch.ones(len(order), dtype=torch.bool)
    free[rank[chosen]] = False
    found = []
    for r in rank[chosen].tolist():
        places = free.nonzero()[:, 0]
        place = places[(places - r).abs().argmin()]
        free[place] = False
        found.append(int(order[place]))
    return torch.tensor(found)


def noise_floor(n: int, m: int, p: float) -> float:
    """Mean score of a masking that treats all questions alike, summed over both numbers of right answers."""

    def chances(k: int) -> Tensor:
        return torch.tensor([math.comb(k, i) * p**i * (1 - p) ** (k - i) for i in range(k + 1)], dtype=torch.float64)

    apart = (torch.arange(n + 1)[:, None] / n - torch.arange(m + 1) / m).abs().double()
    return float((chances(n)[:, None] * chances(m) * apart).sum() / p)


def without(text: str, words: Collection[str]) -> str:
    """Every one of `words` (lower case, whole words) replaced by "it"."""
    return without_words([text], frozenset(words))[0]


def cut(loss_at: Callable[[float], float], target: float) -> float:
    """The share at which a falling loss meets the target, by bisection; within .002."""
    low, high = 0.0, 1.0
    for _ in range(9):
        middle = (low + high) / 2
        low, high = (low, middle) if loss_at(middle) <= target else (middle, high)
    return high


def area(scores: Tensor, positive: Tensor) -> Tensor:
    """Share of pairs in which the positive item scores higher; a tie counts half."""
    a, b = scores[positive][:, None], scores[~positive][None]
    return ((a > b).double() + (a == b).double() / 2).mean()


def shuffled(positive: Tensor, generator: torch.Generator) -> Tensor:
    """The labels dealt to other items."""
    return positive[torch.randperm(len(positive), generator=generator)]


def hold_out(templates: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
    """Per template, in the order in which they first occur: masks of the items to train on, and to test."""
    tests = [torch.tensor([t == name for t in templates]) for name in dict.fromkeys(templates)]
    return [(~test, test) for test in tests]


def surviving_share(left: Any, naive: Any) -> Any:
    """What is left of an AUROC's distance from chance."""
    return (left - 0.5) / (naive - 0.5)


def move(h: Tensor, u: Tensor, w: Tensor) -> Tensor:
    """Every state moved as far as projecting out `u` would move it, but along `w`."""
    return h - (h @ u)[..., None] * w


ANSWERS: dict[str, Callable[..., Any]] = {
    "differential activity": scores,
    "equally active neurons": nearest_in_rank,
    "noise floor": noise_floor,
    "overlap": overlap,
    "text without words": without,
    "cut at equal loss": cut,
    "difference of means": mean_difference,
    "AUROC of a direction": area,
    "shuffled labels": shuffled,
    "held-out templates": hold_out,
    "surviving share": surviving_share,
    "control of equal energy": move,
}
