"""Several units together as a detector: how many does it take to tell a class?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core import auroc, auroc_draws

RIDGE = 1e-2  # added to the diagonal of the correlations, so that units that say the same share the weight


def probe_draws(
    values: Float[Tensor, "n units"],
    labels: Bool[Tensor, " n"],
    texts: Int[Tensor, " n"],
    counts: Sequence[int],
    n_resamples: int = 500,
) -> dict[int, Float[Tensor, " draws"]]:
    """How many units -> AUROC of their weighted sum on texts not used for choosing, then its bootstrap draws.

    On one half of the texts the units with the largest distance from 0.5 in AUROC are chosen and weighted by ridge
    regression of the labels; the sum is measured on the other half. Then the halves change places, and both are
    averaged. `texts`: text of each token; even and odd ones are the halves. One unit is the best of either sign.
    """
    half, found = texts % 2, dict.fromkeys(counts, torch.zeros(()))
    for h in (0, 1):
        seen, rest = half == h, half != h
        order = (auroc(values[seen], labels[seen]) - 0.5).abs().argsort(descending=True)
        for count in counts:
            weight = _ridge(values[seen][:, order[:count]], labels[seen])
            scores = values[rest][:, order[:count]] @ weight
            found[count] = found[count] + auroc_draws(scores, labels[rest], texts[rest], n_resamples) / 2
    return found


def _ridge(x: Float[Tensor, "n k"], labels: Bool[Tensor, " n"]) -> Float[Tensor, " k"]:
    """Weights of the units, each in units of its own spread."""
    spread = x.std(0).clamp_min(1e-6)
    z, y = (x - x.mean(0)) / spread, labels.to(x.dtype) - labels.to(x.dtype).mean()
    gram = z.T @ z / len(z) + RIDGE * torch.eye(z.shape[1], dtype=x.dtype, device=x.device)
    return torch.linalg.solve(gram, z.T @ y / len(z)) / spread
