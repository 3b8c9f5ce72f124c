"""Overshoot by hand: how far an erased model lies above or below the twin that was never taught."""

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.evaluation import QuestionScores, overshoot


def scores(gold, others=-3.0):
    table = torch.full((len(gold), 4), others)
    table[:, 0] = torch.tensor(gold)
    return QuestionScores(table, torch.zeros(len(gold), dtype=torch.long))


BEFORE, NEVER = scores([-0.5, -0.6, -0.4, -0.5]), scores([-4.0, -4.2, -3.9, -4.1])


def test_between_the_two_at_the_twin_and_below_it():
    half = overshoot(BEFORE, scores([-2.25, -2.4, -2.15, -2.3]), NEVER)
    assert half.removed.value == pytest.approx(0.5, abs=0.01) and half.below.value == pytest.approx(-1.775)
    at = overshoot(BEFORE, NEVER, NEVER)
    assert at.removed.value == pytest.approx(1.0) and at.below.value == 0 and at.gap.value == pytest.approx(3.55)
    too_much = overshoot(BEFORE, scores([-6.0, -6.2, -5.9, -6.1]), NEVER)
    assert too_much.below.value == pytest.approx(2.0) and too_much.below.low > 0
    assert too_much.removed.value == pytest.approx(5.55 / 3.55, rel=1e-3)
    # what accuracy sees of it: nothing
    assert too_much.accuracy_after == at.accuracy_after == too_much.accuracy_never
    assert too_much.accuracy_before.value == 1


def test_nothing_was_taught_so_no_share_can_be_removed():
    assert not overshoot(NEVER, NEVER, NEVER).removed.measurable


def test_other_questions_are_refused():
    other = QuestionScores(NEVER.logprobs, torch.ones(4, dtype=torch.long))
    with pytest.raises(ConceptLabError, match="same questions"):
        overshoot(BEFORE, BEFORE, other)
