"""Intervals by hand, at the edges, and how often they hold the truth."""

import copy
import math
import pickle

import pytest
import torch

import coverage_of_intervals as simulated
from conceptlab.core import (
    ConceptLabError,
    Interval,
    bootstrap,
    clustered,
    combined,
    mean_interval,
    paired_bootstrap,
    proportion,
    t_quantile,
)

LEAST = 0.93


def test_an_interval_is_four_numbers_and_says_over_what():
    found = Interval(0.5, 0.4, 0.6, 9, "concepts")
    value, low, high, n = found
    assert (value, low, high, n) == tuple(found) == (0.5, 0.4, 0.6, 9) and found == Interval(0.5, 0.4, 0.6, 9)
    assert str(found) == "0.50 [0.40, 0.60]" and f"{found:.3f}" == "0.500 [0.400, 0.600]"
    assert found.in_words() == "0.50 [0.40, 0.60] over 9 concepts" and found.measurable and found.bounded
    assert copy.deepcopy(found).over == pickle.loads(pickle.dumps(found)).over == "concepts"  # noqa: S301
    assert Interval(1, 1, 1, 1).over == "items"
    none = Interval.unmeasured("it never knew", 3)
    assert not none.measurable and math.isnan(none.low) and none.n == 3
    assert str(none) == none.in_words() == "not measurable (it never knew)"
    assert str(Interval(0.5, math.nan, math.nan, 2)) == "0.50 [no interval]"


@pytest.mark.parametrize(
    ("df", "want"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (7, 2.3646), (15, 2.1314), (39, 2.0227), (200, 1.97190),
     (201, 1.97184), (1000, 1.96234)],
)  # fmt: skip
def test_quantiles_of_student(df, want):
    assert t_quantile(df) == pytest.approx(want, abs=6e-5)


def test_proportions_by_hand():
    """Wilson's interval as printed by Brown, Cai and DasGupta's formulas."""
    assert proportion(13, 13)[:3] == pytest.approx((1, 1 / (1 + 1.959964**2 / 13), 1))
    assert proportion(0, 22)[:2] == (0, 0) and proportion(0, 22).high == pytest.approx(0.14866, abs=1e-4)
    assert proportion(81, 263)[1:3] == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, method 3
    assert bootstrap(torch.arange(263) < 81)[:3] == proportion(81, 263)[:3], "right or wrong answers are a share"
    for successes, n in ((1, 0), (-1, 3), (4, 3)):
        with pytest.raises(ConceptLabError, match="a count from 0 to n"):
            proportion(successes, n)


def test_bootstrap_is_as_wide_as_it_must_be_and_pairs_help():
    assert bootstrap([2.0, 2.0, 2.0])[:3] == (2, 2, 2)
    a = torch.randn(200, generator=torch.Generator().manual_seed(0))
    found = bootstrap(a)
    half = 1.96 * float(a.std()) / 200**0.5
    assert found.low == pytest.approx(float(a.mean()) - half, abs=0.03)
    assert found.high == pytest.approx(float(a.mean()) + half, abs=0.03)
    five = a[:5]
    found = bootstrap(five, 20_000)
    assert found.high - found.low == pytest.approx(2 * 2.776 * float(five.std()) / 5**0.5, rel=0.1)
    assert not bootstrap([0.3]).bounded and bootstrap([0.3]).value == pytest.approx(0.3)
    assert not bootstrap(a, 0).bounded
    assert paired_bootstrap(a + 1, a)[:3] == pytest.approx((1, 1, 1), abs=1e-6)
    with pytest.raises(ConceptLabError, match="at least one value"):
        bootstrap([])
    with pytest.raises(ConceptLabError, match="same items"):
        paired_bootstrap([1.0], [1.0, 2.0])
    for bad in (math.nan, math.inf):
        with pytest.raises(ConceptLabError, match="1 of 2 are not"):
            bootstrap([0.0, bad])


def test_means_over_concepts_by_hand():
    found = mean_interval([0.2, 0.4, 0.6])
    assert found[:3] == pytest.approx((0.4, 0.4 - 4.3027 * 0.2 / 3**0.5, 0.4 + 4.3027 * 0.2 / 3**0.5), abs=1e-4)
    assert (found.n, found.over) == (3, "concepts") and not mean_interval([0.2, 0.4]).bounded
    flat = mean_interval([proportion(13, 13)] * 5)
    assert flat.value == flat.high == 1 and flat.low == pytest.approx(1 - 2.7764 / 1.95996 * 0.22810 / 5**0.5, abs=1e-3)
    assert mean_interval([1.0] * 5)[:3] == (1, 1, 1), "numbers without intervals have the spread that they have"
    with pytest.raises(ConceptLabError, match="finite"):
        mean_interval([Interval.unmeasured("it never knew"), proportion(1, 2), proportion(1, 2)])


def test_clusters_that_agree_are_not_certain():
    right = torch.ones(13, dtype=torch.bool)
    for groups in ([right] * 5, [~right] * 5):
        found = clustered(groups)
        assert found.high - found.low > 0.05 and 0 <= found.low <= found.value <= found.high <= 1
    assert clustered([torch.tensor([1.0, 3.0])] * 4).low < 2 < clustered([torch.tensor([1.0, 3.0])] * 4).high
    assert not clustered([right, right]).bounded and clustered([right, ~right]).value == 0.5
    sizes = clustered([torch.tensor([0.0]), torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.5])])
    assert sizes.value == 0.5, "each concept counts once, whatever it is asked"
    with pytest.raises(ConceptLabError, match="at least one concept"):
        clustered([])


def test_combining_normal_quantities_is_the_usual_interval():
    level = torch.special.ndtri((torch.arange(4000).double() + 0.5) / 4000)
    low, high = combined([level, 2 * level], lambda parts: parts[0] + parts[1]).quantile(
        torch.tensor([0.025, 0.975]).double()
    )
    assert float(high) == pytest.approx(1.96 * 5**0.5, rel=0.02) and float(low) == pytest.approx(-float(high), rel=0.01)
    assert bool(combined([level, torch.full_like(level, torch.nan)], sum).isnan().all())


# ---- how often they hold the truth ------------------------------------------------------------------------
@pytest.mark.parametrize("n", simulated.SIZES)
def test_coverage_of_shares_and_known_questions(n):
    assert min(simulated.of_proportion(n).values()) >= LEAST
    assert min(simulated.known_efficacy(n, 400).values()) >= LEAST


def test_coverage_of_two_spared_sets():
    """At .97 percentile bootstraps held the truth half of the time."""
    assert min(simulated.known_specificity(13, 100).values()) >= LEAST


@pytest.mark.parametrize("axis", ["efficacy", "specificity"])
@pytest.mark.parametrize("truth", [0.03, 0.97])
def test_coverage_over_all_questions(axis, truth):
    assert simulated.all_questions(22, truth, 0.8, axis, 60, 100) >= LEAST


@pytest.mark.parametrize("m", simulated.CONCEPTS)
def test_coverage_over_concepts(m):
    for truth in simulated.TRUTHS:
        assert simulated.over_concepts(truth, m, 40, 300) >= LEAST, truth
    assert simulated.real_clusters(m, 100, 0.0) >= LEAST and simulated.real_clusters(m, 100, 1.0) >= LEAST


def test_coverage_of_means_of_numbers():
    assert simulated.real_means(13, 600, skewed=False) >= LEAST
    assert simulated.real_means(40, 600, skewed=False) >= LEAST
