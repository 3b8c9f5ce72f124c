"""Shares of a gap by hand, where there may be no gap, and how often their intervals hold the truth."""

import math

import pytest
import torch

import coverage_of_intervals as simulated
from conceptlab.core import ConceptLabError, recovered_share, share_difference, share_of_means


def test_recovered_share_by_hand():
    original, erased = [1.0, 1.1, 0.9, 1.0], [0.0, 0.1, -0.1, 0.0]  # a gap of 1 everywhere
    assert recovered_share(original, erased, [0.5, 1.1, -0.1, 0.5]).value == pytest.approx(0.5)
    assert recovered_share(original, erased, erased).value == 0
    assert recovered_share(original, erased, original).value == 1
    assert recovered_share(original, erased, [1.5, 1.6, 1.4, 1.5]).value == pytest.approx(1.5)
    assert recovered_share(original, erased, [-0.5, -0.4, -0.6, -0.5]).value == pytest.approx(-0.5)


def test_recovered_share_interval():
    n = torch.arange(200)
    original, erased = torch.ones(200), torch.zeros(200)
    share = recovered_share(original, erased, (n % 2).float())
    sigma = (0.25 / 200) ** 0.5  # the gap is 1 for every question: the share is a mean of coin flips
    assert share.low == pytest.approx(0.5 - 1.97 * sigma, abs=0.002)
    assert share.high == pytest.approx(0.5 + 1.97 * sigma, abs=0.002)
    everything = recovered_share(original, erased, original)
    assert everything.value == 1 and 0.9 < everything.low < 1, "200 of 200 are not all there are"
    margins = torch.linspace(-1, 1, 200)
    shifted = recovered_share(margins + 1, margins, margins + (n % 2).float())  # an offset of all three cancels
    assert shifted[:3] == pytest.approx(share[:3])
    assert (share.n, share.over) == (200, "questions")


def test_fiellers_interval_by_hand():
    """Where R is the end of the interval, gain - R gap is just significant by Student's test."""
    g = torch.Generator().manual_seed(0)
    gap, gain = 2 + torch.randn(12, generator=g).double(), 1 + torch.randn(12, generator=g).double()
    found = recovered_share(gap, torch.zeros(12), gain)
    for end in (found.low, found.high):
        rest = gain - end * gap
        assert abs(float(rest.mean() / rest.std() * 12**0.5)) == pytest.approx(2.2010, abs=1e-3)
    assert found.low < found.value < found.high


# one of four was lost; noise; nothing; the wrong way; a gap that a second sample would not show
UNSURE = {
    "one of four": ([1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]),
    "none": ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
    "the wrong way": ([0.0, 0.1, 0.0], [1.0, 1.0, 1.1], [1.0, 1.0, 1.0]),
    "noise": ([1.0, -3.0, 2.0, 0.5], [0.0, 0.2, -0.1, 0.1], [5.0, 5.0, 5.0, 5.0]),
    "one question": ([3.0], [0.0], [1.0]),
}


@pytest.mark.parametrize("case", UNSURE)
def test_a_gap_that_may_be_none_has_no_shares(case):
    """They were [-inf, inf], or bounded and wrong."""
    found = recovered_share(*UNSURE[case])
    assert not found.measurable and all(math.isnan(x) for x in found[:3]) and "not measurable (" in str(found)
    sure = torch.tensor([3.0, 3.1, 2.9, 3.0])[: len(UNSURE[case][0])], torch.zeros(len(UNSURE[case][0]))
    unsure = tuple(torch.tensor(x) for x in UNSURE[case])
    for pair in (((*sure, sure[0] / 2), unsure), (unsure, (*sure, sure[0] / 2))):
        assert not share_difference(*pair).measurable


def test_over_concepts_there_is_more_to_draw():
    g = torch.Generator().manual_seed(0)
    original, erased, attacked = simulated.margins(0.5, 6, 13, g, 1.0)
    groups = torch.arange(6).repeat_interleave(13)
    questions, concepts = (recovered_share(original, erased, attacked, x) for x in (None, groups))
    assert questions.value == pytest.approx(concepts.value) and (concepts.n, concepts.over) == (6, "concepts")
    assert concepts.high - concepts.low > 1.5 * (questions.high - questions.low)
    assert recovered_share(original, erased, attacked, groups % 2).over == "questions", "two concepts have no spread"
    difference = share_difference((original, erased, attacked), (original, erased, erased), groups)
    assert difference.value == pytest.approx(concepts.value) and difference.over == "concepts"


def test_shares_refuse_what_does_not_fit():
    with pytest.raises(ConceptLabError, match="same questions"):
        recovered_share([0.0, 1.0], [1.0], [1.0, 1.0])
    with pytest.raises(ConceptLabError, match="same questions"):
        recovered_share([], [], [])
    with pytest.raises(ConceptLabError, match="finite"):
        recovered_share([1.0, math.nan], [0.0, 0.0], [1.0, 1.0])
    with pytest.raises(ConceptLabError, match="Every question needs its concept"):
        recovered_share([1.0, 1.0], [0.0, 0.0], [1.0, 1.0], torch.tensor([0]))
    with pytest.raises(ConceptLabError, match="same questions only"):
        share_difference((torch.ones(2),) * 3, (torch.ones(3),) * 3)


@pytest.mark.parametrize("truth", [0.03, 0.5, 0.97])
def test_coverage_of_shares(truth):
    for m in (1, 5, 8, 16):
        assert simulated.of_shares(truth, m, 13, 150, 1.0 if m > 1 else 0.0) >= 0.93, m
    assert simulated.counted_shares(truth, 22, 200) >= 0.93


@pytest.mark.parametrize("m", simulated.CONCEPTS)
def test_coverage_of_differences(m):
    assert simulated.of_differences(m, 13, 150, 1.0) >= 0.93


def test_distances_that_are_all_zero_are_exact_and_not_answers():
    lost = -torch.tensor([3.0, 1.0, 2.5, 4.0, 2.0, 3.5])
    none = torch.zeros(6)
    back = recovered_share(none, lost, none)
    assert (back.value, back.low, back.high) == pytest.approx((1, 1, 1))
    same = share_difference((none, lost, none), (none, 2 * lost, none))
    assert (same.value, same.low, same.high) == pytest.approx((0, 0, 0))
    right = recovered_share(torch.ones(6), torch.full((6,), 0.25), torch.ones(6))
    assert right.low < 1 < right.high  # six right answers do hide something


def test_a_share_of_two_independent_means_by_hand():
    whole = torch.tensor([0.9, 1.1] * 20)
    assert share_of_means(0.5 * whole, whole).value == pytest.approx(0.5)
    nothing = share_of_means(torch.tensor([0.1, -0.1] * 20), whole)
    assert nothing.value == pytest.approx(0) and nothing.low < 0 < nothing.high < 0.1
    assert not share_of_means(whole, torch.tensor([1.0, -1.0] * 20)).measurable
    assert not share_of_means(whole, -whole).measurable
    assert not share_of_means(whole[:1], whole).measurable
    with pytest.raises(ConceptLabError, match="finite"):
        share_of_means(whole, torch.tensor([1.0, math.nan]))


def test_the_interval_of_a_share_of_means_holds_the_truth_as_often_as_it_says():
    generator, held = torch.Generator().manual_seed(0), 0
    for _ in range(300):
        whole = torch.randn(25, generator=generator) + 2
        part = torch.randn(40, generator=generator) + 1
        found = share_of_means(part, whole)
        held += found.low <= 0.5 <= found.high
    assert 0.91 <= held / 300 <= 0.99
