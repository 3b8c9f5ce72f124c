"""How much of what was lost came back: shares of a gap, and differences between such shares, with intervals.

One convention for a gap that may be zero: where the gap's own 95 % interval reaches 0, no share of it is measurable and
the result says so (`Interval.measurable`); elsewhere Fieller's interval is finite. A share of nothing has no number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .errors import ConceptLabError
from .statistics import FEWEST, Interval, t_quantile


def recovered_share(
    original: Tensor | Sequence[float],
    erased: Tensor | Sequence[float],
    attacked: Tensor | Sequence[float],
    groups: Int[Tensor, " n"] | None = None,
) -> Interval:
    """(attacked - erased) / (original - erased), means over questions, with Fieller's 95 % interval (1954).

    The three lists hold one number per question (0/1, or a log-probability), the same questions in the same order.
    0: the attack brought nothing back; 1: all; above 1 and below 0 are possible. Not measurable where it is not sure
    that anything was erased. `groups`: the concept of each question; with three or more, the interval is over concepts
    drawn anew, and else over questions. Raises when lengths differ or a number is not finite.
    """
    columns = [torch.as_tensor(x).double().flatten() for x in (original, erased, attacked)]
    if len({len(c) for c in columns}) != 1 or not len(columns[0]):
        raise ConceptLabError(
            "A recovered share needs the same questions for all three models; got "
            f"{', '.join(str(len(c)) for c in columns)} values."
        )
    units = _Units(torch.stack(columns), groups)
    return units.unmeasured() or units.fieller()


def share_difference(
    a: tuple[Tensor, Tensor, Tensor], b: tuple[Tensor, Tensor, Tensor], groups: Int[Tensor, " n"] | None = None
) -> Interval:
    """Difference of two recovered shares of the same questions, each given as (top, bottom, value) `[3][n]`.

    Paired question by question (or concept by concept, see `recovered_share`); the two ratios are linearised, which
    holds where both gaps are sure; where one is not, the difference is not measurable.
    """
    x, y = (torch.stack([torch.as_tensor(c).double().flatten() for c in z]) for z in (a, b))
    if x.shape != y.shape or not x.shape[1]:
        raise ConceptLabError("Two shares can be compared on the same questions only; these have different numbers.")
    mine, other = _Units(x, groups), _Units(y, groups)
    if (missing := mine.unmeasured() or other.unmeasured()) is not None:
        return missing
    value, spread = mine.value - other.value, mine.influence() - other.influence()
    half = t_quantile(mine.n - 1) * math.sqrt(float(spread.var()) / mine.n + mine.extra() + other.extra())
    return Interval(value, value - half, value + half, mine.n, mine.over)


def share_of_means(part: Float[Tensor, " n"], whole: Float[Tensor, " m"], over: str = "items") -> Interval:
    """Mean of `part` over the mean of `whole`, two independent samples, with Fieller's 95 % interval (1954).

    What held-out units lost over what trained units lost, e.g.: 1 where forgetting reaches new items as far as the
    trained ones, 0 where it does not reach them. The shares R for which mean(part) - R mean(whole) is not significantly
    different from 0. Not measurable where the interval of the whole reaches 0. `over`: what the units are.
    Raises where a number is not finite.
    """
    part, whole = part.double().flatten(), whole.double().flatten()
    if not bool(part.isfinite().all() and whole.isfinite().all()):
        raise ConceptLabError("A share of means needs finite numbers.")
    n = min(len(part), len(whole))
    if n < 2:
        return Interval.unmeasured(f"a share needs at least two {over} on both sides", n, over)
    p, w = float(part.mean()), float(whole.mean())
    var_p, var_w = (float(x.var()) / len(x) for x in (part, whole))
    t2 = t_quantile(n - 1) ** 2
    a = w * w - t2 * var_w
    if w <= 0 or a <= 0:
        return _no_gap(w, math.sqrt(t2 * var_w), n, over)
    root = math.sqrt(max((p * w) ** 2 - a * (p * p - t2 * var_p), 0.0))
    value = p / w
    return Interval(value, min((p * w - root) / a, value), max((p * w + root) / a, value), n, over)


def _no_gap(gap: float, half: float, n: int, over: str) -> Interval:
    """No share of a gap whose interval reaches 0."""
    reason = f"the gap is {gap:.2f} [{gap - half:.2f}, {gap + half:.2f}], so it is not sure that there is one"
    return Interval.unmeasured(reason, n, over)


class _Units:
    """Gains and gaps of the things that are drawn anew: questions, or whole concepts."""

    def __init__(self, columns: Float[Tensor, "3 n"], groups: Tensor | None):
        if not bool(columns.isfinite().all()):
            raise ConceptLabError("A recovered share needs finite numbers.")
        top, bottom, value = columns
        self.over, gain, gap = "questions", value - bottom, top - bottom
        weight, self.answers = torch.ones_like(gain), value if _are_answers(columns) else None
        if groups is not None:
            if len(groups) != len(gain):
                raise ConceptLabError(f"Every question needs its concept; got {len(groups)} for {len(gain)}.")
            _, index = groups.unique(return_inverse=True)
            if (m := int(index.max()) + 1) >= FEWEST:
                gain, gap, weight = (torch.zeros(m).double().index_add_(0, index, x) for x in (gain, gap, weight))
                self.over = "concepts"
        self.n = len(gain)
        self.gain, self.gap = gain * self.n / weight.sum(), gap * self.n / weight.sum()
        self.total = float(self.gap.mean())
        self.value = float(self.gain.mean()) / self.total if self.total else math.nan

    def extra(self) -> float:
        """Variance of the share that all-equal answers hide: that of two more right and two more wrong ones."""
        if self.answers is None or self.n < 2:
            return 0.0
        n, share = len(self.answers), float(self.answers.mean())
        shrunk = (share * n + 2) / (n + 4)
        return max(shrunk * (1 - shrunk) - share * (1 - share), 0.0) / n / self.total**2

    def unmeasured(self) -> Interval | None:
        """Said where the interval of the gap holds 0 (or the gap is below it)."""
        if self.n < 2:
            return Interval.unmeasured(f"a share needs at least two {self.over}", self.n, self.over)
        half = t_quantile(self.n - 1) * float(self.gap.std()) / math.sqrt(self.n)
        if self.total - half > 0:
            return None
        return _no_gap(self.total, half, self.n, self.over)

    def influence(self) -> Float[Tensor, " n"]:
        """What each unit adds to the share, linearised."""
        return (self.gain - self.value * self.gap) / self.total

    def fieller(self) -> Interval:
        """The shares R for which the mean of gain - R gap is not significantly different from 0."""
        t2, (gain, gap) = t_quantile(self.n - 1) ** 2, (self.gain, self.gap)
        rows = torch.cov(torch.stack([gain, gap])) / self.n
        var_gain = float(rows[0, 0]) + self.extra() * self.total**2
        a = self.total**2 - t2 * float(rows[1, 1])  # above 0 where the gap is sure
        b = float(gain.mean()) * self.total - t2 * float(rows[0, 1])
        c = float(gain.mean()) ** 2 - t2 * var_gain
        root = math.sqrt(max(b * b - a * c, 0.0))
        low, high = min((b - root) / a, self.value), max((b + root) / a, self.value)
        return Interval(self.value, low, high, self.n, self.over)


def _are_answers(columns: Float[Tensor, "3 n"]) -> bool:
    """Right or wrong, beside what may be right and what guessing gives. Distances that are all 0 are none: they are
    exact, and nothing hides behind them."""
    return bool(((columns >= 0) & (columns <= 1)).all()) and set(columns[2].tolist()) <= {0.0, 1.0}
