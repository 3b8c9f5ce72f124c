"""Strength curves by hand: the crossing, what is between two strengths, and methods at equal direct loss."""

import pytest
import torch

from conceptlab.core import Cell, ConceptLabError, NotPossible
from conceptlab.data import Question
from conceptlab.edits import Dense, WeightEdit
from conceptlab.evaluation import ask
from conceptlab.experiments import Point, at_loss, curve_point, curves_of, matched, matched_loss
from conceptlab.experiments.curves import crossing, known_sets, point_metrics, scaled
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
    one = matched_loss(curve(2.0, 0.25), "neighbour", 1.5)
    assert one.value == pytest.approx(0.375) and one.low < 0.375 < one.high and one.over == "questions"


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
