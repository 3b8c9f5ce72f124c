"""Strength curves by hand: the crossing, what is between two strengths, and methods at equal direct loss."""

import pytest
import torch

from conceptlab.core import Cell, ConceptLabError, NotPossible
from conceptlab.data import Question
from conceptlab.edits import Dense, WeightEdit
from conceptlab.evaluation import ask
from conceptlab.experiments import Point, at_loss, curve_point, curves_of, matched
from conceptlab.experiments.curves import N_DRAWS, crossing, known_sets, point_metrics, scaled
from untouched import assert_untouched, weights

QUESTIONS = tuple(
    Question(f"q{i}", f"What is number {i}?", ("a metal", "a gas", "a bird", "a town"), i % 4) for i in range(4)
)


def curve(slope, other, back=0.5):
    """Losses that grow with the scale; `other` of them on the neighbour, `back` of them back under the attack."""
    points = []
    for scale in (1.0, 0.5, 2.0):  # in any order
        target = [slope * scale + x for x in (-0.1, 0.1)]
        near = [other * x for x in target]
        points.append(Point(scale, {"target": target, "neighbour": near}, {"relearning": [target, [x * (1 - back) for x
                      in target]]}, {"target": [x / 2 for x in target], "neighbour": near}))  # fmt: skip
    return points


def test_the_crossing_of_rows():
    means = torch.tensor([[0.0, 1.0, 3.0], [0.0, 2.0, 1.0], [0.0, 0.5, 0.9]])
    found = crossing(means, 1.5)
    assert found[0].tolist() == pytest.approx([0, 0.75, 0.25]) and found[1].tolist() == pytest.approx([0.25, 0.75, 0])
    assert bool(found[2].isnan().all()), "never reached"


def test_a_method_at_a_loss_by_hand():
    at = at_loss(curve(2.0, 0.25), 1.5)
    assert at.scale == pytest.approx(0.75) and float(at.lost["target"].mean()) == pytest.approx(1.5)
    assert float(at.lost["neighbour"].mean()) == pytest.approx(0.375)
    assert float(at.recovered["relearning"].mean()) == pytest.approx(0.75)
    assert float(at.margins["target"].mean()) == pytest.approx(0.75), "of the same edit"
    small = at_loss(curve(2.0, 0.25), 0.5)  # below the weakest strength: towards the original, which loses nothing
    assert small.scale == pytest.approx(0.25) and float(small.lost["neighbour"].mean()) == pytest.approx(0.125)
    with pytest.raises(NotPossible, match=r"take 4.00 nats; asked: 5"):
        at_loss(curve(2.0, 0.25), 5.0)
    with pytest.raises(ConceptLabError, match="above 0"):
        at_loss(curve(2.0, 0.25), 0.0)
    one = matched({"x": {"a": curve(2.0, 0.25)}}, 1.5)["x"]
    assert one["lost_neighbour"].value == pytest.approx(0.375) and one["scale"].value == pytest.approx(0.75)
    assert one["lost_neighbour"].low < 0.375 < one["lost_neighbour"].high and one["lost_neighbour"].over == "questions"


def noisy(slope, share, spread, n=16, seed=0):
    """Questions that differ in how fast the target loses them; the neighbour loses `share` of the mean, all alike."""
    rates = slope + spread * torch.randn(n, generator=torch.Generator().manual_seed(seed))
    return [
        Point(scale, {"target": (rates * scale).tolist(), "neighbour": [share * slope * scale] * n})
        for scale in (0.25, 0.5, 1.0, 2.0)
    ]


def test_an_interval_at_matched_loss_holds_the_match():
    """Where the neighbour's questions are all alike, all that is uncertain is where the target has lost so much."""
    found = matched({"x": {"a": noisy(2.0, 0.5, 0.8)}}, 1.0)["x"]
    assert found["lost_target"].value == pytest.approx(1) and found["lost_target"].high == pytest.approx(1)
    x = found["lost_neighbour"]
    rates = torch.tensor(noisy(2.0, 0.5, 0.8)[2].lost["target"])
    error = float(rates.std()) / 4 / float(rates.mean()) * x.value  # of a ratio, to first order
    assert 0.7 < (x.high - x.low) / (2 * 2.13 * error) < 1.3, "Student's t of 15 degrees of freedom"
    sure = matched({"x": {"a": noisy(2.0, 0.5, 0.0)}}, 1.0)["x"]["lost_neighbour"]
    assert sure.high - sure.low < 1e-6, "no spread, no width"


def test_a_difference_at_matched_loss_is_paired_in_both_crossings():
    """Twice the same method: the target's questions move both crossings alike, so their difference is sure."""
    curves = {"pisces": {"a": noisy(2.0, 0.5, 0.8)}, "twice": {"a": noisy(4.0, 0.5, 1.6)}}
    found = matched(curves, 1.0)["twice"]
    assert found["lost_neighbour"].high - found["lost_neighbour"].low > 0.1
    pair = found["lost_neighbour_minus_pisces"]
    assert abs(pair.value) < 1e-5 and pair.high - pair.low < 0.01
    other = matched(curves | {"other": {"a": noisy(2.0, 0.5, 0.8, seed=5)}}, 1.0)["other"]
    gap = other["lost_neighbour_minus_pisces"]
    assert gap.high - gap.low > 0.1, "other questions move another crossing"


def test_a_loss_that_most_draws_do_not_reach_has_a_number_without_an_interval():
    curve = noisy(1.0, 0.5, 0.8)
    top = float(torch.tensor(curve[-1].lost["target"]).mean())
    x = matched({"x": {"a": curve}}, 0.999 * top)["x"]["lost_neighbour"]
    assert x.measurable and not x.bounded, "half of the draws end below it"
    assert N_DRAWS == 2_000


def test_two_concepts_count_their_questions_once_and_have_an_interval_over_these():
    curves = {"x": {"a": noisy(2.0, 0.25, 0.4), "b": noisy(2.0, 0.75, 0.4, n=32, seed=1)}}
    x, y = (matched({"x": {c: curves["x"][c]}}, 1.0)["x"]["lost_neighbour"] for c in "ab")
    both = matched(curves, 1.0)["x"]
    assert both["lost_neighbour"].value == pytest.approx((16 * x.value + 32 * y.value) / 48)
    assert both["lost_neighbour"].over == "questions" and both["lost_neighbour"].n == 48
    assert both["n_concepts"].value == 2 and both["lost_neighbour"].bounded


def test_equal_slopes_at_different_strengths_do_not_differ_and_a_dearer_method_does():
    concepts = ("a", "b", "c")
    curves = {
        "pisces": {c: curve(2.0, 0.25) for c in concepts},
        "scaled": {c: curve(4.0, 0.25) for c in concepts},  # the same method, twice as strong
        "dear": {c: curve(2.0, 1.0) for c in concepts},
        "weak": {c: curve(0.2, 0.1) for c in concepts},
    }
    found = matched(curves, 1.5)
    assert found["scaled"]["lost_neighbour_minus_pisces"].value == pytest.approx(0, abs=0.02)
    dear = found["dear"]["lost_neighbour_minus_pisces"]
    assert dear.value == pytest.approx(1.125, abs=0.01) and dear.low > 0.9 and dear.over == "concepts" and dear.n == 3
    assert found["dear"]["recovered_relearning"].value == pytest.approx(0.75)
    assert found["scaled"]["margin_lost_target"].value == pytest.approx(0.75, abs=0.02)
    assert found["weak"]["n_concepts"].value == 0 and "lost_neighbour" not in found["weak"]
    assert "lost_neighbour_minus_pisces" not in found["pisces"]


def test_a_point_of_a_model_and_the_way_through_a_table(tiny_llama):
    lm = tiny_llama(initializer_range=0.3)
    before = weights(lm)
    edit = WeightEdit.of(lm, {lm.down_proj_name(1): Dense(torch.randn(16, 32, generator=torch.Generator()))})
    asked = known_sets(
        {"target": ask(lm, QUESTIONS), "unseen_x": ask(lm, QUESTIONS), "unseen_y": ask(lm, QUESTIONS)}, 4
    )
    n = len(asked["target"].questions)
    assert set(asked) == {"target", "unseen"} and len(asked["unseen"].questions) == 2 * n
    none, half, full = (curve_point(lm, edit, scale, asked) for scale in (0.0, 0.5, 1.0))
    assert max(map(abs, none.lost["target"])) < 1e-4 and full.lost["target"] != half.lost["target"]
    assert full.lost["unseen"] == pytest.approx(full.lost["target"] * 2, abs=1e-3)
    assert max(map(abs, none.margins["target"])) < 1e-4 and full.margins["target"] != full.lost["target"]
    assert set(point_metrics(full)) <= {f"{kind}_{name}" for kind in ("lost", "margin_lost") for name in asked}
    assert_untouched(lm, before)
    record = {Cell("a", "x", "curve", "0.5"): vars(half)}.get
    assert curves_of(record, ["a", "b"], ["x", "y"]) == {"x": {"a": [half]}}


def test_what_has_no_strength_says_so():
    class Hook:
        def applied(self, lm):
            raise AssertionError

    with pytest.raises(NotPossible, match="Hook has no strength to scale"):
        scaled(Hook(), 0.5)
