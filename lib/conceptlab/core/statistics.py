"""Intervals that keep their width at the edges and say over what they generalise; see docs/statistics.md.

Which one for what: right or wrong answers `proportion`; a mean of other numbers over items `bootstrap`; one number per
concept `mean_interval`; questions of several concepts, where the claim is about concepts in general, `clustered`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .errors import ConceptLabError

Z = 1.959964  # 97.5 % quantile of the normal distribution: every interval here is a 95 % interval
FEWEST = 3  # clusters that a spread can be read from; below, the values themselves say more than an interval


class _Numbers(NamedTuple):
    value: float
    low: float
    high: float
    n: int


class Interval(_Numbers):
    """An estimate with its 95 % interval: a tuple (value, low, high, n), where `n` counts what `over` names.

    `value` is nan where the quantity is not measurable (`reason` says why); `low` and `high` are nan where no interval
    was asked for, or where the items are too few to have one.
    """

    over: str = "items"  # what would be drawn anew: questions, texts, concepts, ...
    reason: str = ""  # why it is not measurable

    def __new__(
        cls, value: float | int, low: float | int, high: float | int, n: int, over: str = "items", reason: str = ""
    ) -> Interval:
        made = super().__new__(cls, value, low, high, n)
        made.over, made.reason = over, reason
        return made

    @classmethod
    def unmeasured(cls, reason: str, n: int = 0, over: str = "items") -> Interval:
        """What cannot be measured here, neither 0 nor 1."""
        return cls(math.nan, math.nan, math.nan, n, over, reason)

    @property
    def measurable(self) -> bool:
        return not math.isnan(self.value)

    @property
    def bounded(self) -> bool:
        """Whether there is an interval beside the value."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def in_words(self) -> str:
        """The numbers, and over what they generalise."""
        return f"{self} over {self.n} {self.over}" if self.measurable else str(self)

    def __format__(self, spec: str) -> str:
        if not self.measurable:
            return f"not measurable ({self.reason})" if self.reason else "not measurable"
        if not self.bounded:
            return f"{self.value:{spec or '.2f'}} [no interval]"
        value, low, high = (f"{x:{spec or '.2f'}}" for x in self[:3])
        return f"{value} [{low}, {high}]"

    def __str__(self) -> str:
        return format(self)


# ---- right or wrong ---------------------------------------------------------------------------------------
def proportion(successes: int, n: int, over: str = "questions") -> Interval:
    """Share of `n` items with Wilson's interval (1927), with width at 0 and at 1. Raises for an impossible count."""
    if n < 1 or not 0 <= successes <= n:
        raise ConceptLabError(f"A share needs at least one item and a count from 0 to n; got {successes} of {n}.")
    return Interval(successes / n, *_wilson(successes / n, n, Z), n, over)


def _wilson(share: float, n: float | int, z: float) -> tuple[float, float]:
    """The shares whose score test with critical value `z` does not reject `share`; `n` need not be whole."""
    centre, spread = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = ((centre + sign * spread) / (1 + z * z / n) for sign in (-1, 1))
    return max(min(low, share), 0.0), min(max(high, share), 1.0)


def binomial_draws(successes: int, n: int, size: int, rng: np.random.Generator) -> Float[Tensor, " size"]:
    """Draws of the share behind `successes` of `n`, to carry through ratios and means.

    Half come from Beta(x, n - x + 1), half from Beta(x + 1, n - x), the distributions behind the two ends of Clopper
    and Pearson's interval, so that the quantiles are the mid-P interval's; at 0 and n of n they still spread.
    """
    upper = rng.random(size) < 0.5
    return torch.from_numpy(_beta(successes + upper, n - successes + ~upper, size, rng))


def exact_levels(successes: int, n: int, size: int, rng: np.random.Generator) -> Float[Tensor, " size"]:
    """A rising table of the share's bounds, the lower ones of each level and then the upper ones.

    Its quantiles at 2.5 and 97.5 % are Clopper and Pearson's interval, which holds any truth at least 95 times in 100.
    """
    low, high = (np.sort(_beta(successes + up, n - successes + 1 - up, size, rng)) for up in (0, 1))
    return torch.from_numpy(np.where(np.arange(size) < size / 2, low, high))


def _beta(a: np.ndarray | int, b: np.ndarray | int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Beta draws, a parameter of 0 meaning all mass at that end."""
    draws = rng.beta(np.maximum(a, 1e-9), np.maximum(b, 1e-9), size)
    return np.where(np.equal(a, 0), 0.0, np.where(np.equal(b, 0), 1.0, draws))


def combined(
    parts: Sequence[Float[Tensor, " size"]], rising: Callable[[Sequence[Tensor]], Tensor]
) -> Float[Tensor, " size"]:
    """Draws of independent quantities, as a rising table of the bounds of a function that rises in each of them.

    The bound at normal level z is the largest (below the middle: smallest) value over parts at levels z_j with
    sum z_j^2 = z^2. For sums of normal quantities that is the usual interval; near an edge, where a harmonic mean of
    draws is too low (the smallest decides), it keeps its coverage.
    """
    tables, size = [part.double().sort().values for part in parts], len(parts[0])
    if not size or any(bool(table.isnan().any()) for table in tables):
        return torch.full((size,), torch.nan, dtype=torch.float64)
    level = torch.special.ndtri((torch.arange(size).double() + 0.5) / size)
    ways = torch.cat([torch.eye(len(tables)), torch.ones(1, len(tables)), _spread_out(len(tables))]).double()
    ways = ways / ways.norm(dim=1, keepdim=True)
    at = [(torch.special.ndtr(way[:, None] * level) * size).long().clamp_max(size - 1) for way in ways.T]
    values = rising([table[i] for table, i in zip(tables, at, strict=True)])
    return torch.where(level < 0, values.amin(0), values.amax(0))


def _spread_out(n: int, size: int = 24) -> Float[Tensor, "size n"]:
    """Directions with no negative part, the same ones every time."""
    return torch.randn(size, n, generator=torch.Generator().manual_seed(0)).abs()


# ---- means of other numbers -------------------------------------------------------------------------------
def bootstrap(
    values: Tensor | Sequence[float], n_resamples: int = 2_000, seed: int = 0, over: str = "items"
) -> Interval:
    """Mean of `values` and the 95 % interval over resamples of the items, widened for few items.

    Right or wrong answers (bool) go to `proportion`. One item has no interval; items that are all equal have no spread.
    `n_resamples` 0: no interval is computed. Raises when there is no item, or one is not finite.
    """
    data = _checked(values)
    if isinstance(values, Tensor) and values.dtype == torch.bool:
        return proportion(int(data.sum()), len(data), over)
    if len(data) < 2 or n_resamples < 1:
        return Interval(float(data.mean()), math.nan, math.nan, len(data), over)
    picks = torch.randint(len(data), (n_resamples, len(data)), generator=torch.Generator().manual_seed(seed))
    return interval_of(widened(data[picks].mean(1), float(data.mean()), len(data)), float(data.mean()), len(data), over)


def paired_bootstrap(
    a: Tensor | Sequence[float],
    b: Tensor | Sequence[float],
    n_resamples: int = 2_000,
    seed: int = 0,
    over: str = "items",
) -> Interval:
    """Mean of the item-wise difference `a - b`, with its interval. Raises when the lengths differ."""
    a, b = torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64)
    if a.shape != b.shape:
        raise ConceptLabError(f"A paired comparison needs the same items on both sides; got {len(a)} and {len(b)}.")
    return bootstrap(a - b, n_resamples, seed, over)


def widened(draws: Float[Tensor, " draws"], value: float, n: int) -> Float[Tensor, " draws"]:
    """Bootstrap draws of a statistic of `n` items, spread as Student's t asks; resamples alone are too narrow."""
    return value + (draws - value) * (t_quantile(n - 1) / Z * math.sqrt(n / (n - 1)))


def interval_of(draws: Float[Tensor, " draws"], value: float, n: int, over: str = "items") -> Interval:
    """The middle 95 % of `draws`, stretched to hold the estimate itself; without draws, none."""
    if not len(draws):
        return Interval(value, math.nan, math.nan, n, over)
    low, high = torch.quantile(draws.double(), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    if math.isnan(low) or math.isnan(high):
        return Interval(value, math.nan, math.nan, n, over)
    return Interval(value, min(low, value), max(high, value), n, over)


# ---- over concepts ----------------------------------------------------------------------------------------
def mean_interval(values: Tensor | Sequence[float] | Sequence[Interval], over: str = "concepts") -> Interval:
    """Mean of one number per cluster with Student's t-interval; fewer than three have no interval (print them all).

    Numbers given with their own intervals keep the width that these give the mean (Zou and Donner's square-and-add,
    2008), also where all numbers happen to agree, as those near 0 or 1 do. Those not measurable are refused.
    """
    given = [x for x in values if isinstance(x, Interval) and x.bounded] if not isinstance(values, Tensor) else []
    data = _checked([x.value if isinstance(x, Interval) else float(x) for x in values])
    m, value = len(data), float(data.mean())
    if m < FEWEST:
        return Interval(value, math.nan, math.nan, m, over)
    t = t_quantile(m - 1)
    half = t * float(data.std()) / math.sqrt(m)
    below, above = (
        t / Z * math.sqrt(sum((x.value - end) ** 2 for x, end in zip(given, ends, strict=True))) / m
        for ends in ([x.low for x in given], [x.high for x in given])
    )
    return Interval(value, value - max(half, below), value + max(half, above), m, over)


def clustered(values_by_concept: Sequence[Tensor | Sequence[float]], over: str = "concepts") -> Interval:
    """Mean over concepts of the mean over their questions, for concepts and questions drawn anew (two stages).

    `mean_interval` of the concepts' means: the spread between them holds already what the choice of questions adds, and
    the interval is never narrower than the questions alone make it. Right or wrong answers (bool) stay within 0 and 1,
    and reach as far as Wilson's interval does at the number of independent answers that the spread amounts to (Korn and
    Graubard 1998), for shares are skewed near the edges. Fewer than three concepts have no interval.
    """
    if not values_by_concept:
        raise ConceptLabError("An interval over concepts needs at least one concept; the list was empty.")
    groups = [_checked(values) for values in values_by_concept]
    if not all(isinstance(v, Tensor) and v.dtype == torch.bool for v in values_by_concept):
        return mean_interval([_by_spread(group) for group in groups], over)
    found = mean_interval([proportion(int(g.sum()), len(g)) for g in groups], over)
    means = torch.stack([group.mean() for group in groups])
    if not found.bounded:
        return found
    low, high = found.low, found.high
    if (variance := float(means.var()) / len(groups)) > 0:
        low, high = _wilson(found.value, found.value * (1 - found.value) / variance, t_quantile(len(groups) - 1))
    return Interval(found.value, max(min(found.low, low), 0.0), min(max(found.high, high), 1.0), found.n, over)


def _by_spread(data: Float[Tensor, " n"]) -> Interval:
    """Mean of the questions of one concept, with what they alone leave open."""
    half = Z * float(data.std()) / math.sqrt(len(data)) if len(data) > 1 else math.nan
    return Interval(float(data.mean()), float(data.mean()) - half, float(data.mean()) + half, len(data), "questions")


@lru_cache
def t_quantile(df: int) -> float:
    """97.5 % quantile of Student's t, by bisection of its exact distribution (Abramowitz and Stegun 26.7.3-4)."""
    if df < 1:
        raise ConceptLabError(f"Student's t needs at least one degree of freedom; got {df}.")
    if df > 200:  # Cornish and Fisher's first two terms, right to 1e-6 here
        return Z + (Z**3 + Z) / (4 * df) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * df**2)
    low, high = Z, 13.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_within(middle, df) < 0.95 else (low, middle)
    return (low + high) / 2


def _t_within(t: float, df: int) -> float:
    """Chance that |T| < t."""
    angle = math.atan(t / math.sqrt(df))
    odd = df % 2
    term = total = math.cos(angle) if odd else 1.0
    for k in range(3 if odd else 2, df - 1, 2):
        term *= math.cos(angle) ** 2 * (k - 1) / k
        total += term
    if odd:
        return 2 / math.pi * (angle + (math.sin(angle) * total if df > 1 else 0.0))
    return math.sin(angle) * total


def _checked(values: Tensor | Sequence[float]) -> Float[Tensor, " n"]:
    try:
        data = torch.as_tensor(values).double().flatten()
    except (TypeError, ValueError):
        raise ConceptLabError("An interval needs numbers; the list holds something else.") from None
    if not len(data):
        raise ConceptLabError("An interval needs at least one value; the list was empty.")
    if not bool(data.isfinite().all()):
        raise ConceptLabError(
            f"An interval needs finite values; {int((~data.isfinite()).sum())} of {len(data)} are not."
        )
    return data
