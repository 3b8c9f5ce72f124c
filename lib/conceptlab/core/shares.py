"""How much of what was lost came back: shares of a gap, and differences between such shares, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import ConceptLabError
from .statistics import Interval


def recovered_share(
    original: Tensor | Sequence[float],
    erased: Tensor | Sequence[float],
    attacked: Tensor | Sequence[float],
    n_resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """(attacked - erased) / (original - erased), means over questions, with its 95 % bootstrap interval.

    The three lists hold one number per question (0/1, or a log-probability), the same questions in the same order;
    whole questions are resampled. 0: the attack brought nothing back; 1: all; above 1 and below 0 are possible.
    A resample in which nothing was erased (gap <= 0) says nothing about the share and counts as unbounded, half of
    them on either side. Raises when lengths differ, or when nothing was erased on the questions as a whole.
    """
    columns = [torch.as_tensor(x, dtype=torch.float64).flatten() for x in (original, erased, attacked)]
    if len({len(c) for c in columns}) != 1 or not len(columns[0]):
        raise ConceptLabError(
            "A recovered share needs the same questions for all three models; got "
            f"{', '.join(str(len(c)) for c in columns)} values."
        )
    before, after, now = torch.stack(columns)
    if n_resamples < 1 or not bool(torch.stack(columns).isfinite().all()):
        raise ConceptLabError("A recovered share needs finite numbers and at least one resample.")
    gap = float((before - after).mean())
    if gap <= 0:
        raise ConceptLabError(
            f"Nothing was erased on these questions (original - erased = {gap:.3f}), so no share of it can be "
            "recovered; use questions on which the edit lowers the score."
        )
    n = len(before)
    picks = torch.randint(n, (n_resamples, n), generator=torch.Generator().manual_seed(seed))
    gaps, gains = (before - after)[picks].mean(1), (now - after)[picks].mean(1)
    shares = gains / gaps
    undefined = gaps <= 0
    shares[undefined] = torch.where(torch.arange(int(undefined.sum())) % 2 == 0, torch.inf, -torch.inf).double()
    ordered = shares.sort().values
    low, high = ordered[int(0.025 * n_resamples)], ordered[-1 - int(0.025 * n_resamples)]
    return Interval(float((now - after).mean()) / gap, float(low), float(high), n)


def share_difference(
    a: tuple[Tensor, Tensor, Tensor], b: tuple[Tensor, Tensor, Tensor], n_resamples: int = 2_000, seed: int = 0
) -> Interval | None:
    """Difference of two recovered shares of the same questions, each given as (top, bottom, value) `[3][n]`.

    Questions are resampled together for both. None where one of them has no gap to recover.
    """
    x, y = torch.stack(a).double(), torch.stack(b).double()
    if x.shape != y.shape:
        raise ConceptLabError("Two shares can be compared on the same questions only; these have different numbers.")
    picks = torch.randint(x.shape[1], (n_resamples, x.shape[1]), generator=torch.Generator().manual_seed(seed))

    def shares(z: Tensor) -> Tensor:
        top, bottom, value = z
        return (value - bottom).mean(-1) / (top - bottom).mean(-1)

    if min(float((z[0] - z[1]).mean()) for z in (x, y)) <= 0:
        return None
    draws = shares(x[:, picks]) - shares(y[:, picks])
    ordered = torch.where(draws.isfinite(), draws, torch.inf).sort().values
    cut = int(0.025 * n_resamples)
    return Interval(float(shares(x) - shares(y)), float(ordered[cut]), float(ordered[-1 - cut]), x.shape[1])
