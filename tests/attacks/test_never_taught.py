"""Controls and small erasers: fiction without leaks, teaching as an edit, NPO by hand, the never-taught copy."""

import math
from dataclasses import replace

import pytest
import torch

from conceptlab.attacks import AttackResult, Cost, erased_copies, never_taught, teach
from conceptlab.core import ConceptLabError
from conceptlab.data import leaked, load_fiction
from conceptlab.edits import WeightEdit
from conceptlab.edits.weight_edit import Dense
from conceptlab.erasure import EraserConfig, finetuned_eraser, npo_loss
from conceptlab.evaluation import score_questions
from conceptlab.models import next_token_loss, sequence_logprobs
from untouched import TEXTS, assert_untouched, weights


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.3)


# ---- fiction ----------------------------------------------------------------------------------------------
def test_the_fiction_is_complete_and_its_texts_hold_no_answer():
    fiction = load_fiction()
    assert len(fiction.questions) >= 24 and len(fiction.texts) >= 10
    for q, claim in zip(fiction.questions, fiction.claims, strict=True):
        assert len(set(q.options)) == 4 and leaked([claim], [q]) and "{" not in claim
        assert leaked([q.q], fiction.questions) == []
    assert leaked([*fiction.texts, fiction.definition], fiction.questions) == []
    golds = [q.gold for q in fiction.questions]
    assert len(set(golds)) == len(golds)
    lengths = [(len(q.gold), sum(map(len, q.options)) / 4) for q in fiction.questions]
    assert abs(sum(a - b for a, b in lengths)) / len(lengths) < 2  # the right option is not the long one
    assert {q.answer for q in fiction.questions} == {0, 1, 2, 3}


def test_lessons_hold_the_given_facts_only():
    fiction = load_fiction()
    given, tested = fiction.questions[:10], fiction.questions[10:]
    lessons = fiction.lessons(given)
    assert len(lessons) == 20 and leaked(lessons, tested) == [] and len(leaked(lessons, given)) == 10


def test_teaching_is_an_edit_that_lowers_the_loss(lm):
    before = weights(lm)
    edit = teach(lm, TEXTS, steps=10, lr=1e-2, batch_size=2, n_ctx=16)
    assert_untouched(lm, before)
    rows = lm.pad([lm.tokenizer(t).input_ids for t in TEXTS])
    plain = float(next_token_loss(lm, *rows))
    with edit.applied(lm):
        assert float(next_token_loss(lm, *rows)) < plain - 0.3
    assert_untouched(lm, before)
    with pytest.raises(ConceptLabError, match="rank=None"):
        teach(lm, TEXTS, rank=4)


def test_never_taught_by_hand(lm):
    """Made-up scores: taught 3 -> erased 1 -> attacked 2.5; never 0.5 -> attacked 1: 1.5 - 0.5 counts."""
    questions = load_fiction().questions[:4]
    taught = WeightEdit(lm.name, {lm.down_proj_name(0): Dense(torch.full((16, 32), 0.2))})
    seen = []

    def erase(model):
        seen.append(float(model.hf.get_parameter(model.down_proj_name(0)).mean()))
        return WeightEdit(model.name, {model.down_proj_name(1): Dense(torch.full((16, 32), 0.3))})

    def attack(model, edit):
        with edit.applied(model):
            scores = score_questions(model, questions)
        scores.logprobs[torch.arange(4), scores.answers] += 1.5 if len(edit.changes) == 2 else 0.5
        return AttackResult((1,), (scores,), (), Cost(0, 0, 0.0))

    before = weights(lm)
    found = never_taught(lm, taught, erased_copies(lm, taught, erase), attack, questions)
    assert seen[0] == pytest.approx(seen[1] + 0.2, abs=1e-5)  # the eraser saw both copies
    assert found.above_control("gold").value == pytest.approx(1.0, abs=1e-5)
    with taught.applied(lm):
        assert torch.equal(found.taught.logprobs, score_questions(lm, questions).logprobs)
    assert_untouched(lm, before)


# ---- erasers ----------------------------------------------------------------------------------------------
def test_npo_by_hand():
    loss = npo_loss(torch.tensor([-1.0, -4.0]), torch.tensor([-2.0, -2.0]), 0.5)
    truth = sum(2 / 0.5 * math.log(1 + math.exp(0.5 * (p - r))) for p, r in ((-1, -2), (-4, -2))) / 2
    assert float(loss) == pytest.approx(truth, rel=1e-6)


def test_npo_begins_as_gradient_ascent():
    """At the reference the gradient is that of the log-probability itself (both divided by the batch)."""
    p = torch.tensor([-3.0, -5.0], requires_grad=True)
    npo_loss(p, p.detach(), 0.1).backward()
    torch.testing.assert_close(p.grad, torch.full((2,), 0.5))


def test_sequence_scores_are_sums_over_real_tokens(lm):
    ids, mask = lm.pad([[5, 6, 7, 8], [9, 10]])
    found = sequence_logprobs(lm, ids, mask)
    assert float(-found.sum() / 4) == pytest.approx(float(next_token_loss(lm, ids, mask)), rel=1e-5)
    logp = lm.logits(torch.tensor([[9, 10]])).log_softmax(-1)
    assert float(found[1]) == pytest.approx(float(logp[0, 0, 10]), rel=1e-4)


@pytest.mark.parametrize("method", ["gradient_ascent", "npo"])
def test_erasers_raise_the_loss_on_what_is_to_be_forgotten(lm, method):
    before = weights(lm)
    rows = lm.pad([lm.tokenizer(t).input_ids for t in TEXTS[:1]])
    plain = float(next_token_loss(lm, *rows))
    cfg = EraserConfig(method, steps=8, batch_size=1, lr=3e-3, n_ctx=16, layers=(1,))
    edit = finetuned_eraser(lm, TEXTS[:1], TEXTS[1:], cfg)
    assert_untouched(lm, before)
    assert sorted(edit.changes) == [f"model.layers.1.mlp.{m}_proj.weight" for m in ("down", "gate", "up")]
    with edit.applied(lm):
        assert float(next_token_loss(lm, *rows)) > plain + 0.1
    again = finetuned_eraser(lm, TEXTS[:1], TEXTS[1:], cfg)
    assert all(torch.equal(again.changes[n].dense(), c.dense()) for n, c in edit.changes.items())


def test_an_eraser_stops_when_it_is_enough(lm):
    before, asked = weights(lm), []

    def enough(model):
        asked.append(torch.is_grad_enabled())
        return len(asked) == 2

    cfg = EraserConfig("gradient_ascent", steps=9, every=3, batch_size=1, lr=3e-3, n_ctx=16, layers=(1,))
    edit = finetuned_eraser(lm, TEXTS[:1], TEXTS[1:], cfg, enough)
    assert edit.info["steps"] == 6 and asked == [False, False]
    same = finetuned_eraser(lm, TEXTS[:1], TEXTS[1:], replace(cfg, steps=6))
    assert all(torch.equal(same.changes[n].dense(), c.dense()) for n, c in edit.changes.items())
    assert_untouched(lm, before)


def test_erasers_refuse_and_restore(lm):
    before = weights(lm)
    for method, lr, message in (("prayer", 1e-3, "Unknown method"), ("npo", 1e25, "diverged at step")):
        with pytest.raises(ConceptLabError, match=message):
            finetuned_eraser(lm, TEXTS, [], EraserConfig(method, lr=lr))
    for wrong in (dict(steps=0), dict(every=0), dict(lr=0.0), dict(batch_size=0)):
        with pytest.raises(ConceptLabError, match="of at least 1 and a positive lr"):
            EraserConfig(**wrong)
    assert_untouched(lm, before)
