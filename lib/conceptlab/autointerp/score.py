"""Detection: does a label alone tell where its unit fires, better than the labels of other units do?

A judge reads a label and held-out contexts, some with strong firings and some where the unit is silent, and gives
each a number; the score is the chance that a firing context gets the larger one (AUROC). Scorers that ask other
questions are in `scorers` and `steer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core import (
    ConceptLabError,
    Confusion,
    Interval,
    auroc_interval,
    auroc_rows,
    balanced_accuracy_interval,
    best_threshold,
    confusion,
    f1_interval,
)
from .examples import UnitExamples
from .explain import Label
from .judge import LabelJudge, judge_all

UNEXPLAINED = "unexplained"  # what a label reads that does no better than the labels of other units


@dataclass(frozen=True)
class Detection:
    """How well one label tells where its unit fires, on texts the explainer has not seen."""

    label: Label
    rate: float  # share of tokens on which the unit fires
    auroc: Interval  # against random silent contexts
    hard: Interval | None  # against the same tokens, silent; None where no token is ever silent
    balanced_accuracy: Interval  # threshold from the labelling half
    f1: Interval  # of "fires", with the same threshold; n says how many contexts of both sides there were
    confusion: Confusion  # the table behind both
    foreign: tuple[float, ...]  # AUROC of other units' labels on the same contexts
    foreign_hard: tuple[float, ...]  # the same against the hard negatives; empty where there are none

    @property
    def control_high(self) -> float:
        """Upper end of the 95 % range of the foreign labels."""
        return float(torch.quantile(torch.tensor(self.foreign), 0.975))

    @property
    def explained(self) -> bool:
        """Whether the label does better than the shuffled control."""
        return self.auroc.value > self.control_high

    @property
    def text(self) -> str:
        """The label, or the admission that there is none."""
        return self.label.text if self.explained else UNEXPLAINED


def detect(
    judge: LabelJudge,
    labels: Sequence[Label],
    labelling: Sequence[UnitExamples],
    held_out: Sequence[UnitExamples],
    n_shuffles: int = 20,
    n_resamples: int = 2_000,
) -> list[Detection]:
    """Score every label on the held-out examples of its unit, and foreign labels on the same contexts.

    `labelling` holds the examples the labels were made from: only the threshold of the balanced accuracy uses them.
    A judge that is a language model costs `n_shuffles` + 2 times its price per context; pass 3 or so.
    """
    found = []
    for i, (label, seen, new) in enumerate(zip(labels, labelling, held_out, strict=True)):
        rows = [label, *_foreign(labels, i, n_shuffles)]
        easy = _sides(judge, rows, new.spread, new.silent)
        threshold = best_threshold(*(side[0] for side in _sides(judge, [label], seen.spread, seen.silent)))
        own = easy[0][0], easy[1][0]
        hard, foreign_hard = None, ()
        if new.hard:
            scores = _sides(judge, rows, new.matched, new.hard)
            hard = auroc_interval(scores[0][0], scores[1][0], n_resamples)
            foreign_hard = tuple(auroc_rows(scores[0][1:], scores[1][1:]).tolist())
        found.append(
            Detection(
                label,
                new.rate,
                auroc_interval(*own, n_resamples),
                hard,
                balanced_accuracy_interval(*own, threshold, n_resamples),
                f1_interval(*own, threshold, n_resamples),
                confusion(*own, threshold),
                tuple(auroc_rows(easy[0][1:], easy[1][1:]).tolist()),
                foreign_hard,
            )
        )
    return found


def _foreign(labels: Sequence[Label], i: int, n_shuffles: int) -> list[Label]:
    n = len(labels)
    if n < 2:
        raise ConceptLabError("The shuffled control needs at least two units; one label cannot be shuffled.")
    return [labels[(i + shift + 1) % n] for shift in range(min(n_shuffles, n - 1))]


def _sides(judge: LabelJudge, labels: Sequence[Label], firing: Sequence, silent: Sequence) -> tuple[Tensor, Tensor]:
    """Scores `[labels, n]` and `[labels, m]` of two lists of contexts, judged together."""
    scores = judge_all(judge, labels, [*firing, *silent])
    return scores[:, : len(firing)], scores[:, len(firing) :]
