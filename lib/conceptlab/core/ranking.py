"""Order statistics with intervals: AUROC of one and of many scores, confusion at a threshold, correlation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .errors import ConceptLabError
from .statistics import Interval


def auroc_rows(firing: Float[Tensor, "rows n"], silent: Float[Tensor, "rows m"]) -> Float[Tensor, " rows"]:
    """Chance that a firing context scores above a silent one, a tie counting half; for the scores of several labels."""
    if not firing.shape[1] or not silent.shape[1]:
        raise ConceptLabError("A comparison needs contexts on both sides; one list was empty.")
    fires = torch.arange(firing.shape[1] + silent.shape[1]) < firing.shape[1]
    return auroc(torch.cat([firing, silent], 1).T, fires)


def auroc_interval(
    firing: Float[Tensor, " n"], silent: Float[Tensor, " m"], n_resamples: int = 2_000, seed: int = 0
) -> Interval:
    """AUROC with the 95 % interval over resamples of the contexts of both sides."""
    return _pair_interval(_wins(firing, silent), n_resamples, seed)


def _wins(firing: Tensor, silent: Tensor) -> Tensor:
    """`[n, m]`: 1 where the firing context scores higher, 1/2 at a tie."""
    if not len(firing) or not len(silent):
        raise ConceptLabError("A comparison needs contexts on both sides; one list was empty.")
    return (firing[:, None] > silent).float() + (firing[:, None] == silent).float() / 2


def _pair_interval(pairs: Tensor, n_resamples: int, seed: int) -> Interval:
    """Mean over all pairs; both sides are resampled on their own, pairs are not independent."""
    generator = torch.Generator().manual_seed(seed)
    pairs = pairs.double()
    left, right = (_counts(size, n_resamples, generator) for size in pairs.shape)
    means = ((left @ pairs) * right).sum(1) / pairs.numel()
    return _interval(float(pairs.mean()), means, sum(pairs.shape))


def _counts(size: int, n_resamples: int, generator: torch.Generator) -> Float[Tensor, "resamples size"]:
    """How often each of `size` items is drawn in each resample."""
    picks = torch.randint(size, (n_resamples, size), generator=generator)
    return torch.zeros(n_resamples, size).scatter_add_(1, picks, torch.ones(n_resamples, size)).double()


def _interval(value: float, draws: Tensor, n: int) -> Interval:
    low, high = torch.nanquantile(draws, torch.tensor([0.025, 0.975], dtype=draws.dtype)).tolist()
    return Interval(value, low, high, n)


# ---- with a threshold -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Confusion:
    """Counts of a judge's yes and no against the truth."""

    hits: int  # firing, judged to fire
    misses: int  # firing, judged silent
    false_alarms: int  # silent, judged to fire
    rejections: int  # silent, judged silent

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the shares of firing and of silent contexts that are judged rightly."""
        firing, silent = self.hits + self.misses, self.false_alarms + self.rejections
        return (self.hits / firing + self.rejections / silent) / 2

    @property
    def f1(self) -> float:
        """`2 hits / (2 hits + misses + false alarms)`; 0 without a hit. Depends on how many contexts of each side."""
        wrong = self.misses + self.false_alarms
        return 2 * self.hits / (2 * self.hits + wrong) if self.hits else 0.0


def confusion(firing: Float[Tensor, " n"], silent: Float[Tensor, " m"], threshold: float) -> Confusion:
    """The table of one judge: "fires" is a score above `threshold`."""
    hits, alarms = int((firing > threshold).sum()), int((silent > threshold).sum())
    return Confusion(hits, len(firing) - hits, alarms, len(silent) - alarms)


def best_threshold(firing: Float[Tensor, " n"], silent: Float[Tensor, " m"]) -> float:
    """The threshold with the largest balanced accuracy: "fires" is a score above it. For the labelling half."""
    levels = torch.cat([firing, silent]).unique()
    above = (firing > levels[:, None]).float().mean(1) + (silent <= levels[:, None]).float().mean(1)
    return float(levels[int(above.argmax())])


def balanced_accuracy_interval(
    firing: Float[Tensor, " n"],
    silent: Float[Tensor, " m"],
    threshold: float,
    n_resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """Mean of the shares of firing contexts above and silent contexts not above `threshold`, with its interval."""
    right = ((firing > threshold).float()[:, None] + (silent <= threshold).float()[None]) / 2
    return _pair_interval(right, n_resamples, seed)


def f1_interval(
    firing: Float[Tensor, " n"],
    silent: Float[Tensor, " m"],
    threshold: float,
    n_resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """F1 of "fires" with its interval; firing and silent contexts are resampled on their own."""
    generator = torch.Generator().manual_seed(seed)
    n, m = len(firing), len(silent)
    hits = _counts(n, n_resamples, generator) @ (firing > threshold).double()
    alarms = _counts(m, n_resamples, generator) @ (silent > threshold).double()
    draws = 2 * hits / (n + hits + alarms)  # 2 hits + misses + alarms = n + hits + alarms
    return _interval(confusion(firing, silent, threshold).f1, draws, n + m)


# ---- correlation ----------------------------------------------------------------------------------------
def correlation_interval(
    predicted: Float[Tensor, " n"],
    true: Float[Tensor, " n"],
    groups: Int[Tensor, " n"],
    n_resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """Pearson's r over all tokens, the interval over resamples of whole contexts (`groups`: context of each token).

    A constant side correlates with nothing: r is 0 there.
    """
    if len(predicted) < 2:
        raise ConceptLabError(f"A correlation needs at least two tokens; got {len(predicted)}.")
    x, y = _standardised(predicted), _standardised(true)
    _, group = groups.unique(return_inverse=True)
    terms = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], 1)
    sums = torch.zeros(int(group.max()) + 1, 6, dtype=torch.float64).index_add_(0, group, terms)
    counts = _counts(len(sums), n_resamples, torch.Generator().manual_seed(seed))
    return _interval(float(_pearson(sums.sum(0)[None])), _pearson(counts @ sums), len(sums))


def _standardised(values: Tensor) -> Tensor:
    """Mean 0 and mean square 1; zeros for a constant, which rounding would leave with a tiny spread."""
    centred = values.double() - values.double().mean()
    size = centred.square().mean().sqrt()
    return centred / size if size > 1e-9 * values.abs().max() else torch.zeros_like(centred)


def _pearson(sums: Float[Tensor, "rows 6"]) -> Float[Tensor, " rows"]:
    """r from the sums of 1, x, y, xx, yy, xy."""
    n, x, y, xx, yy, xy = sums.unbind(1)
    spread = ((n * xx - x * x).clamp_min(0) * (n * yy - y * y).clamp_min(0)).sqrt()
    return torch.where(spread > 1e-9 * n * n, (n * xy - x * y) / spread, 0.0)


# ---- does a direction tell one class from the rest? ------------------------------------------------------
def auroc(scores: Float[Tensor, "n d"], labels: Bool[Tensor, " n"]) -> Float[Tensor, " d"]:
    """Area under the ROC curve of each column: the chance that a positive scores above a negative, ties count half.

    Raises ConceptLabError unless both classes occur.
    """
    positive, negative = _both(scores, labels)
    ordered = negative.T.contiguous().sort(1).values
    values = positive.T.contiguous()
    below = torch.searchsorted(ordered, values)
    not_above = torch.searchsorted(ordered, values, right=True)
    return (below + not_above).double().mean(1).float() / (2 * len(negative))


def auroc_draws(
    scores: Float[Tensor, " n"],
    labels: Bool[Tensor, " n"],
    texts: Int[Tensor, " n"] | None = None,
    n_resamples: int = 2_000,
    seed: int = 0,
) -> Float[Tensor, " draws"]:
    """AUROC of one column, then (from index 1 on) that of each bootstrap resample of the texts.

    All items of a text are resampled together; None: each item is its own text. The same texts and seed give the
    same resamples, so draws of several columns may be subtracted or averaged.
    """
    positive, negative = _both(scores[:, None], labels)
    wins = (positive > negative.T).double() + 0.5 * (positive == negative.T).double()
    texts = torch.arange(len(scores)) if texts is None else texts
    _, text = texts.unique(return_inverse=True)
    n = int(text.max()) + 1
    picks = torch.randint(n, (n_resamples, n), generator=torch.Generator().manual_seed(seed))
    counts = torch.zeros(n_resamples, n, dtype=torch.float64)
    counts.scatter_add_(1, picks, torch.ones_like(picks, dtype=torch.float64))
    w_pos, w_neg = counts[:, text[labels]], counts[:, text[~labels]]
    areas = ((w_pos @ wins) * w_neg).sum(1) / (w_pos.sum(1) * w_neg.sum(1))
    return torch.cat([wins.mean()[None], areas])


def draws_interval(draws: Float[Tensor, " draws"], n: int) -> Interval:
    """Value and 95 % interval of what `auroc_draws` gives (or of sums and differences of it); `n` texts."""
    low, high = torch.nanquantile(draws[1:], torch.tensor([0.025, 0.975], dtype=draws.dtype)).tolist()
    return Interval(float(draws[0]), low, high, n)


def _both(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    positive, negative = scores[labels], scores[~labels]
    if not len(positive) or not len(negative):
        raise ConceptLabError(f"A class needs items inside and outside it; got {len(positive)} and {len(negative)}.")
    return positive, negative
