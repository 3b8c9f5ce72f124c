"""The k largest of many numbers, faster than a plain top-k where a CPU has to read them from memory."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def largest(
    scores: Float[Tensor, "batch n"], k: int, smallest: bool = False
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """Values and indices of `scores.topk(k)` in no particular order; exact, and on a CPU in less than half the time.

    The columns are folded into groups. The k groups with the largest maxima hold the k largest scores, since a score
    outside them is exceeded by k maxima; only those groups are searched, in the same way. `smallest`: the k smallest.
    """
    n = scores.shape[1]
    fold = next((f for f in range(n // (4 * k), 1, -1) if n % f == 0), 1) if scores.is_cpu else 1
    if fold == 1:
        values, indices = scores.topk(k, largest=not smallest, sorted=False)
        return values, indices
    folded = scores.view(len(scores), fold, n // fold)  # a group is a column of it
    extremes = folded.amin(1) if smallest else folded.amax(1)
    groups = extremes.topk(k, largest=not smallest, sorted=False).indices
    inside = folded.gather(2, groups[:, None].expand(-1, fold, -1)).view(len(scores), fold * k)
    values, at = largest(inside, k, smallest)
    return values, torch.div(at, k, rounding_mode="floor") * (n // fold) + groups.gather(1, at % k)
