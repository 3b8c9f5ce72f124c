"""Bootstrap intervals over questions (or features, or texts)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import ConceptLabError


class Interval(NamedTuple):
    """A mean with its 95 % percentile-bootstrap interval."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def bootstrap(values: Tensor | Sequence[float], n_resamples: int = 2_000, seed: int = 0) -> Interval:
    """Mean of `values` and the 95 % interval over resamples of the items. Raises when there is no item."""
    data = torch.as_tensor(values, dtype=torch.float64).flatten()
    if not len(data):
        raise ConceptLabError("An interval needs at least one value; the list was empty.")
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(data), (n_resamples, len(data)), generator=generator)
    means = data[picks].mean(1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(data.mean()), low, high, len(data))


def paired_bootstrap(
    a: Tensor | Sequence[float], b: Tensor | Sequence[float], n_resamples: int = 2_000, seed: int = 0
) -> Interval:
    """Mean of the item-wise difference `a - b`, with its interval. Raises when the lengths differ."""
    a, b = torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64)
    if a.shape != b.shape:
        raise ConceptLabError(f"A paired comparison needs the same items on both sides; got {len(a)} and {len(b)}.")
    return bootstrap(a - b, n_resamples, seed)
