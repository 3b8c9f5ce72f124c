"""Too much is a fault, too: an erased model against its twin that was never taught.

A model that does not know a fact gives its answer some small probability. That is the zero of efficacy: an edit that
brings the right answer *below* it has not removed knowledge but added an aversion, which accuracy cannot see (both
guess) and which tells a reader of the probabilities what was erased. The unit is nats per token of the right answer.
With invented facts the twin is exact; for a real concept `unasked` stands in (depth.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..core import ConceptLabError, Interval, paired_bootstrap, proportion, recovered_share
from .questions import QuestionScores


@dataclass(frozen=True)
class Overshoot:
    """The same questions before the erasure, after it, and in the twin; intervals over questions."""

    gap: Interval  # nats per token by which the right answers are likelier where they were taught
    removed: Interval  # share of the gap that the erasure took: 1 is the twin, more is too much
    below: Interval  # nats per token by which the right answers lie below the twin's; positive: it overshoots
    accuracy_before: Interval
    accuracy_after: Interval
    accuracy_never: Interval


def overshoot(before: QuestionScores, after: QuestionScores, never: QuestionScores) -> Overshoot:
    """Compare an erased model with the twin that was never taught. Raises where the questions differ."""
    if not torch.equal(before.answers, after.answers) or not torch.equal(before.answers, never.answers):
        raise ConceptLabError("Overshoot compares the same questions in the same order; ask all three models the same.")
    gap, below = (paired_bootstrap(*pair, over="questions") for pair in (
        (before.gold, never.gold), (never.gold, after.gold)))  # fmt: skip
    accuracies = (proportion(int(s.correct.sum()), len(s.correct)) for s in (before, after, never))
    # the share of the gap that is back, counted from the taught model's side
    removed = recovered_share(-never.gold, -before.gold, -after.gold)
    return Overshoot(gap, removed, below, *accuracies)
