"""The depth score: by hand, against plain patching, and at its two ends; what answers weigh unasked for."""

import pytest
import torch

from conceptlab.attacks import teach
from conceptlab.core import ConceptLabError, NotPossible
from conceptlab.data import FEW_SHOT, Question, fact_texts, question_stem
from conceptlab.edits import Dense, WeightEdit
from conceptlab.evaluation import (
    DepthConfig,
    answer_states,
    depth,
    depth_base,
    depth_scores,
    gold_logprobs,
    score_questions,
    unasked,
)
from untouched import assert_untouched, weights

QUESTIONS = (
    Question("a", "What is tin?", ("a metal", "a gas", "a bird", "a town"), 0),
    Question("b", "What is helium?", ("a rare metal", "a gas", "a fish", "a king"), 1),
    Question("c", "Which colour has gold?", ("red", "blue", "yellow", "green"), 2),
)


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(d_model=32, n_layers=4, initializer_range=0.3)


def noise(lm, layer, scale=1.0, seed=0):
    delta = scale * torch.randn(lm.d_model, lm.d_mlp, generator=torch.Generator().manual_seed(seed))
    return WeightEdit.of(lm, {lm.down_proj_name(layer): Dense(delta)})


def test_the_score_by_hand():
    lacking = torch.tensor([[2.0, 1.0, 0.01], [0.0, 0.0, 0.04], [1.0, 1.0, 1.0]])
    edited = torch.tensor([[1.0, 3.0, 9.0], [1.0, 1.0, 1.0], [-1.0, 0.5, 0.0]])
    found = depth_scores(lacking, edited)
    assert found[0] == pytest.approx((1.0 + 1.0) / 3.0) and found[1].isnan() and found[2] == pytest.approx(0.5 / 3)


def test_patching_from_the_middle_equals_patching_the_whole_pass(lm):
    cfg = DepthConfig((0, 2, 3))
    base = depth_base(lm, QUESTIONS, cfg)
    torch.testing.assert_close(base.known, gold_logprobs(lm, QUESTIONS), rtol=1e-4, atol=1e-4)
    q, other = QUESTIONS[0], QUESTIONS[1]
    gold = lm.encode(f" {q.gold}")
    own, foreign = (lm.encode(FEW_SHOT) + lm.encode(question_stem(x)) + gold for x in (q, other))
    for i, layer in enumerate(base.layers):
        source = lm.capture(torch.tensor([foreign]), [("resid_post", layer)])[("resid_post", layer)][0]

        def put(x, source=source):
            x = x.clone()
            x[0, -len(gold) - 1 : -1] = source[-len(gold) - 1 : -1]
            return x

        with lm.intervene({("resid_post", layer): put}):
            logprobs = lm.logits(torch.tensor([own]))[0].log_softmax(-1)
        by_hand = logprobs[-len(gold) - 1 : -1].gather(1, torch.tensor(gold)[:, None]).mean()
        assert float(base.known[0] - by_hand) == pytest.approx(float(base.lacking[0, i]), abs=1e-3)


@pytest.fixture
def taught(lm):
    """The edit that teaches the facts, so that the model without it is the twin that was never taught."""
    return teach(lm, fact_texts(QUESTIONS), steps=40, lr=1e-2, batch_size=3, n_ctx=24)


def test_nothing_changed_has_depth_0_and_the_twin_depth_1(lm, taught):
    before = weights(lm)
    never = answer_states(lm, QUESTIONS)
    with taught.applied(lm):
        base = depth_base(lm, QUESTIONS, never=never)
        none, twin, half = (depth(lm, base, x) for x in (None, taught * -1.0, taught * -0.5))
        late = depth(lm, base, noise(lm, 3, 3.0))
    assert bool((base.lacking > 0.05).any()), "the facts were not learned"
    assert none.score.value == pytest.approx(0.0, abs=1e-3) and float(none.edited.abs().max()) < 1e-3
    assert twin.score.value == pytest.approx(1.0, abs=1e-3)
    assert 0 < half.score.value < 1
    assert float(late.edited[:, :-1].abs().max()) < 1e-3, "below the edited layer everything is readable"
    assert late.score.value < 1 and late.score.n <= 3
    assert_untouched(lm, before)


def test_unasked_reads_the_next_question_with_another_answer(lm):
    same = (QUESTIONS[0], Question("d", "And zinc?", ("a metal", "a gas", "a bird", "a town"), 0), QUESTIONS[1])
    found = unasked(lm, same)
    swapped = Question("x", same[2].q, same[0].options, 0)
    torch.testing.assert_close(found.logprobs[0], score_questions(lm, [swapped]).logprobs[0], rtol=1e-4, atol=1e-4)
    with pytest.raises(NotPossible, match="two questions"):
        unasked(lm, QUESTIONS[:1])


def test_bad_layers_are_refused(lm):
    with pytest.raises(ConceptLabError, match="one layer at least"):
        depth_base(lm, QUESTIONS, DepthConfig(()))
    with pytest.raises(ConceptLabError, match="layer 9 does not exist"):
        depth_base(lm, QUESTIONS, DepthConfig((9,)))
