"""Two scorecards of the same questions, before and after: what was lost, what was kept, and how sure that is.

Relative numbers are corrected for chance: 1 means as good as before, 0 means guessing. What the original model does not
do above chance is *not measurable*: the number is nan, `Interval.measurable` is False and `Interval.reason` says why.
docs/statistics.md tells which interval stands where.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..core import (
    ConceptLabError,
    Interval,
    binomial_draws,
    combined,
    exact_levels,
    interval_of,
    paired_bootstrap,
    proportion,
    widened,
)
from .fluency import Fluency
from .questions import QuestionScores, guess_corrected
from .scorecard import UNSEEN, Scorecard
from .writing import Behaviour


@dataclass(frozen=True)
class SetChange:
    """One set of questions before and after; intervals over questions."""

    accuracy_before: Interval  # of the questions that are compared: 1 where only known ones are
    accuracy_after: Interval
    relative: Interval  # chance-corrected accuracy after over before, clipped to [0, 1]; may be not measurable
    gold: Interval  # change of the right answer's log-probability per token (nats)
    margin: Interval  # change of right minus best wrong option (nats)
    accuracy_original: Interval  # the original's, over all questions, known or not
    # What `relative` would be if nothing were forgotten and every lucky guess drawn anew; 1 without selection. Some of
    # the questions that the original answers rightly are lucky guesses, and any edit that shakes the model loses those
    redrawn: float


@dataclass(frozen=True)
class Comparison:
    """After against before; every number with its 95 % interval over questions (or texts).

    The `n` of an axis that several sets of items go into is that of the smallest; 0 for one that was not measured at
    all. An axis is not measurable where one of its sets is not.
    """

    changes: dict[str, SetChange]  # by set; "unseen" is all unseen near domains together
    efficacy: Interval  # 1 - relative accuracy on the target
    specificity: Interval  # harmonic mean of the relative accuracies on the chosen neighbour and general questions
    coherence: Interval  # harmonic mean of `parts` (1 if nothing was measured)
    overall: Interval  # harmonic mean of the three
    # What coherence is made of, each relative to the base and at most 1: `perplexity` before over after on held-out
    # text, `repetition` (share of different n-grams), `instructions` (share of those that are followed)
    parts: dict[str, Interval] = field(default_factory=dict)
    specificity_unseen: Interval | None = None  # relative accuracy on near domains that no choice has seen; None: none


@dataclass(frozen=True)
class _Axis:
    """A quantity under way: its estimate, draws around it, the items behind it, and why it may not be measurable."""

    value: float
    draws: Float[Tensor, " n_resamples"]
    n: int
    over: str = "questions"
    reason: str = ""

    def interval(self) -> Interval:
        if self.reason:
            return Interval.unmeasured(self.reason, self.n, self.over)
        return interval_of(self.draws, self.value, self.n, self.over)


def compare(
    base: Scorecard, after: Scorecard, n_resamples: int = 2_000, seed: int = 0, known: bool = False
) -> Comparison:
    """Paired comparison of two cards over the same questions.

    `known`: use only the questions that the base card answers rightly; see `SetChange.redrawn`. `n_resamples` 0: values
    without intervals, for searches. Raises when the cards do not hold the same questions.
    """
    _check_pair(base, after)
    if n_resamples < 0:
        raise ConceptLabError(f"The number of resamples is 0 (no intervals) or more; got {n_resamples}.")
    rng = np.random.default_rng(seed)
    pairs = {name: (before, after.scores[name]) for name, before in base.scores.items()}
    if unseen := [pair for name, pair in pairs.items() if name.startswith(UNSEEN)]:
        pairs["unseen"] = _joined([pair[0] for pair in unseen]), _joined([pair[1] for pair in unseen])
    axes = {name: _relative(name, *pair, known, n_resamples, rng) for name, pair in pairs.items()}
    changes = {name: _change(*pair, axes[name].interval(), known, n_resamples, seed) for name, pair in pairs.items()}
    spared = [axis for name, axis in axes.items() if name != "target" and not name.startswith(("unseen", UNSEEN))]
    parts = _coherence_parts(base.text, after.text, base.writing, after.writing, n_resamples, rng)
    efficacy = _efficacy(axes.get("target"), n_resamples)
    specificity, coherence = (_together(part, n_resamples) for part in (spared, list(parts.values())))
    measured = [axis for axis in (efficacy, specificity, coherence) if axis.n or axis.reason]
    overall = _together([efficacy, specificity, coherence], n_resamples)
    overall = _Axis(overall.value, overall.draws, min((x.n for x in measured), default=0), "questions", overall.reason)
    made_of = {name: part.interval() for name, part in parts.items()}
    return Comparison(
        changes, efficacy.interval(), specificity.interval(), coherence.interval(), overall.interval(), made_of,
        changes["unseen"].relative if unseen else None,
    )  # fmt: skip


def compare_writing(base: Behaviour, after: Behaviour, n_resamples: int = 2_000, seed: int = 0) -> dict[str, Interval]:
    """The parts of the coherence that need the model to write, by themselves; see `Comparison.parts`."""
    parts = _coherence_parts(None, None, base, after, n_resamples, np.random.default_rng(seed))
    return {name: part.interval() for name, part in parts.items()}


def relative_accuracy(before: float, after: float, chance: float = 0.25) -> float:
    """`(after - chance) / (before - chance)` clipped to [0, 1]; nan where the base is not above chance."""
    if not before > chance:
        return math.nan
    return min(max((after - chance) / (before - chance), 0.0), 1.0)


def harmonic_mean(parts: Sequence[Tensor | float]) -> Tensor:
    """Harmonic mean over the parts (element-wise); 0 as soon as one part is 0 or less, nan where one is nan."""
    if not parts:
        raise ConceptLabError("A harmonic mean needs at least one number.")
    stacked = torch.stack([torch.as_tensor(p, dtype=torch.float64) for p in parts])
    mean = len(stacked) / (1 / stacked.clamp_min(1e-300)).sum(0)
    none = (stacked <= 0).any(0) & ~stacked.isnan().any(0)
    return torch.where(none, torch.zeros_like(mean), mean)


# ---- questions --------------------------------------------------------------------------------------------
def _relative(
    name: str, before: QuestionScores, now: QuestionScores, known: bool, n_draws: int, rng: np.random.Generator
) -> _Axis:
    """Relative accuracy of one set, and draws of it.

    Of known questions the share still answered is all that is not sure. Else three shares are drawn: of questions
    answered before, of those the ones still answered, and of the others the ones answered now.
    """
    chance, had, has = before.chance, before.correct, now.correct
    n = int(had.sum()) if known else len(had)
    original = proportion(int(had.sum()), len(had))
    if original.low <= chance:
        told = f"the original answers {original} of the {name} questions rightly, and guessing gives {chance:.2f}"
        return _Axis(math.nan, torch.full((n_draws,), torch.nan), n, reason=told)
    kept, right, gained = int((had & has).sum()), int(had.sum()), int((~had & has).sum())
    if known:
        levels = (exact_levels(kept, right, n_draws, rng) - chance) / (1 - chance)
        return _Axis(relative_accuracy(1.0, kept / right, chance), levels.clamp(0, 1), n)
    a = binomial_draws(right, len(had), n_draws, rng)
    b = a * binomial_draws(kept, right, n_draws, rng)
    b += (1 - a) * binomial_draws(gained, len(had) - right, n_draws, rng)
    value, before_value = float(has.double().mean()), original.value
    ratio = ((b - chance) / (a - chance).clamp_min(1e-12)).clamp(0, 1)
    either = (torch.arange(n_draws) % 2).double()  # a draw with nothing to keep says nothing: half of them each way
    return _Axis(relative_accuracy(before_value, value, chance), torch.where(a > chance, ratio, either), n)


def _change(
    before: QuestionScores, now: QuestionScores, relative: Interval, known: bool, n_resamples: int, seed: int
) -> SetChange:
    """The numbers of one set of questions, `relative` being known already."""
    right, n_all = int(before.correct.sum()), len(before.correct)
    original = proportion(right, n_all)
    if known and not right:
        none = Interval.unmeasured("the original answers none of the questions rightly", 0, "questions")
        return SetChange(none, none, relative, none, none, original, math.nan)
    keep = before.correct if known else torch.ones_like(before.correct)
    first, second = before.only(keep), now.only(keep)
    gold, margin = (
        paired_bootstrap(getattr(second, x), getattr(first, x), n_resamples, seed, "questions")
        for x in ("gold", "margin")
    )
    start, end = (proportion(int(s.correct.sum()), len(s.correct)) for s in (first, second))
    known_share = max(guess_corrected(original.value, before.logprobs.shape[1]), 0.0) / original.value if right else 0.0
    return SetChange(start, end, relative, gold, margin, original, known_share if known else 1.0)


def _joined(parts: Sequence[QuestionScores]) -> QuestionScores:
    if len({p.logprobs.shape[1] for p in parts}) != 1:
        raise ConceptLabError("All unseen near domains need questions with the same number of options; mend the file.")
    return QuestionScores(torch.cat([p.logprobs for p in parts]), torch.cat([p.answers for p in parts]))


# ---- axes -------------------------------------------------------------------------------------------------
def _efficacy(target: _Axis | None, n_draws: int) -> _Axis:
    if target is None:
        return _Axis(math.nan, torch.full((n_draws,), torch.nan), 0, reason="the target was not asked")
    return _Axis(1 - target.value, 1 - target.draws, target.n, reason=target.reason)


def _together(parts: Sequence[_Axis], n_draws: int) -> _Axis:
    """Harmonic mean of quantities measured on different items; 1 of none."""
    if not parts:
        return _Axis(1.0, torch.ones(n_draws), 0)
    value = float(harmonic_mean([part.value for part in parts]))
    reason = next((part.reason for part in parts if part.reason), "")
    over = parts[0].over if len({part.over for part in parts}) == 1 else "items of each kind"
    return _Axis(value, combined([p.draws for p in parts], harmonic_mean), min(p.n for p in parts), over, reason)


def _coherence_parts(
    base_text: Fluency | None,
    text: Fluency | None,
    base_writing: Behaviour | None,
    writing: Behaviour | None,
    n_draws: int,
    rng: np.random.Generator,
) -> dict[str, _Axis]:
    """Each part of the coherence; parts that were not measured are left out."""
    parts: dict[str, _Axis] = {}
    if base_text is not None and text is not None:
        lost, tokens = (text.nll - base_text.nll).double(), base_text.n_tokens.double()
        growth, draws = _ratio(lost, tokens, n_draws, rng)
        parts["perplexity"] = _Axis(min(math.exp(-growth), 1.0), (-draws).exp().clamp(max=1), len(lost), "texts")
    if base_writing is None or writing is None:
        return parts
    before, now = base_writing.distinct.double(), writing.distinct.double()
    if float(before.sum()) > 0:
        kept, draws = _ratio(now, before, n_draws, rng)
        parts["repetition"] = _Axis(min(kept, 1.0), draws.clamp(0, 1), len(before), "prompts")
    had, has = base_writing.follows > 0, writing.follows > 0
    if bool(had.any()):  # where the base follows no instruction, none can be lost
        stay = binomial_draws(int((had & has).sum()), int(had.sum()), n_draws, rng)
        a = binomial_draws(int(had.sum()), len(had), n_draws, rng)
        b = a * stay + (1 - a) * binomial_draws(int((~had & has).sum()), int((~had).sum()), n_draws, rng)
        value = min(float(has.sum()) / float(had.sum()), 1.0)
        draws = (b / a.clamp_min(1e-12)).clamp(0, 1)
        parts["instructions"] = _Axis(value, draws, len(had), "instructions")
    return parts


def _ratio(top: Tensor, bottom: Tensor, n_draws: int, rng: np.random.Generator) -> tuple[float, Tensor]:
    """Sum over sum and draws of it over resampled items; one item has no spread to draw from."""
    n, value = len(top), float(top.sum() / bottom.sum())
    if n < 2:
        return value, torch.full((n_draws,), torch.nan, dtype=torch.float64)
    picks = torch.from_numpy(rng.integers(n, size=(n_draws, n)))
    drawn = top[picks].sum(1) / bottom[picks].sum(1).clamp_min(1e-12)
    return value, widened(drawn, value, n)


def _check_pair(base: Scorecard, after: Scorecard) -> None:
    same = (base.concept, base.split, list(base.scores)) == (after.concept, after.split, list(after.scores))
    if not same or any(
        not torch.equal(base.scores[n].answers, after.scores[n].answers)
        or base.scores[n].logprobs.shape != after.scores[n].logprobs.shape
        for n in base.scores
    ):
        raise ConceptLabError(
            "Two scorecards can be compared when concept, split and questions are the same; make both with the same "
            "arguments of scorecard()."
        )
    texts = [card.text for card in (base, after) if card.text is not None]
    if len(texts) == 1 or (texts and not torch.equal(texts[0].n_tokens, texts[1].n_tokens)):
        raise ConceptLabError("The two scorecards were made on different held-out texts; use the same n_texts.")
    if (base.writing is None) != (after.writing is None):
        raise ConceptLabError("Only one of the two scorecards holds what the model writes; use the same writing=.")
