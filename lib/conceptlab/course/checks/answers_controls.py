"""The course's own answers to the exercises of notebook 11."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Z = 1.959964


def above_controls(scores: Tensor, controls: Tensor, level: float = 0.99) -> Tensor:
    """Share of `scores` above the `level` quantile of `controls`."""
    return (scores > controls.quantile(level)).float().mean()


def imposter(left: Tensor, right: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """Other directions in place of those of `left @ right`: as long as they, and the whole change of equal norm."""
    own = left / left.norm(dim=0)
    free = others[(others @ own).abs().amax(1) < 0.9]
    drawn = free[torch.randperm(len(free), generator=generator)[: left.shape[1]]]
    made = drawn.T * left.norm(dim=0)
    return made * (left @ right).norm() / (made @ right).norm()


def wilson(right: int, n: int) -> tuple[float, float]:
    """The shares p for which |right / n - p| is at most Z times sqrt(p (1 - p) / n)."""
    share = right / n
    centre = share + Z * Z / (2 * n)
    spread = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return (centre - spread) / (1 + Z * Z / n), (centre + spread) / (1 + Z * Z / n)


def share_back(original: Tensor, erased: Tensor, after: Tensor) -> float:
    """What came back of what was lost; nan where the loss is not sure (at most two standard errors)."""
    gap = original - erased
    if gap.mean() <= 2 * gap.std() / math.sqrt(len(gap)):
        return math.nan
    return float((after - erased).mean() / gap.mean())


def within(scores: Tensor, positive: Tensor, surface: Tensor) -> float:
    """AUROC over pairs of equal surface; nan where there is none."""
    pairs = surface[positive][:, None] == surface[~positive][None]
    a, b = scores[positive][:, None], scores[~positive][None]
    wins = (a > b).double() + (a == b).double() / 2
    return float(wins[pairs].mean()) if bool(pairs.any()) else math.nan


ANSWERS: dict[str, Callable[..., Any]] = {
    "above the controls": above_controls,
    "other directions in the same rows": imposter,
    "an interval with width": wilson,
    "a share of a gap": share_back,
    "pairs of equal surface": within,
}
