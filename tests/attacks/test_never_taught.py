"""Controls: fiction without leaks, teaching as an edit, the never-taught copy."""

import pytest
import torch

from conceptlab.attacks import AttackResult, Cost, erased_copies, never_taught, teach
from conceptlab.core import ConceptLabError
from conceptlab.data import leaked, load_fiction
from conceptlab.edits import WeightEdit
from conceptlab.edits.weight_edit import Dense
from conceptlab.evaluation import score_questions
from conceptlab.models import next_token_loss
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
