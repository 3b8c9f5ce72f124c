"""Teacher-forced rows: what predicts the first answer token counts, and what stands behind the last does not."""

import pytest
import torch

from conceptlab.core import NotPossible
from conceptlab.data import FEW_SHOT, Question, question_stem
from conceptlab.dissection import forced_gold, forced_own, traced
from conceptlab.evaluation import gold_logprobs
from conceptlab.models import greedy

QUESTIONS = [
    Question("a", "What do cows drink?", ("milk", "water from a river"), 1),
    Question("b", "What colour is the sky?", ("blue", "red"), 0),
    Question("c", "How many legs has a spider?", ("six", "eight"), 1),
]


def logp(lm, forced):
    found = traced(lm, forced).logits.log_softmax(-1).gather(1, forced.targets[:, None])[:, 0]
    return torch.stack([part.mean() for part in found.split(forced.lengths)])


def test_gold_answers_score_as_questions_do(tiny_llama):
    lm = tiny_llama()
    forced = forced_gold(lm, QUESTIONS)
    assert torch.allclose(logp(lm, forced), gold_logprobs(lm, QUESTIONS), atol=1e-4)
    assert forced.answers == tuple(f" {q.gold}" for q in QUESTIONS)


def test_own_answers_are_what_the_model_says_and_likeliest_token_by_token(tiny_llama):
    lm = tiny_llama()
    forced = forced_own(lm, QUESTIONS, 5)
    assert torch.equal(traced(lm, forced).logits.argmax(-1), forced.targets)
    said = greedy(lm, [question_stem(q, "") for q in QUESTIONS], 5)
    assert forced.targets.tolist() == [token for row in said for token in row]


def test_first_cuts_rows_positions_and_targets_alike(tiny_llama):
    lm = tiny_llama()
    forced = forced_gold(lm, QUESTIONS)
    two = forced.first(2)
    assert len(two) == 2 and len(two.at) == sum(two.lengths) == len(two.targets)
    assert torch.allclose(logp(lm, two), logp(lm, forced)[:2], atol=1e-5)
    assert len(forced.first(9)) == 3 and len(FEW_SHOT) > 0


def test_a_model_that_says_nothing_has_no_own_answers(tiny_llama, monkeypatch):
    lm = tiny_llama()
    monkeypatch.setattr("conceptlab.dissection.forced.greedy", lambda *_: [[] for _ in QUESTIONS])
    with pytest.raises(NotPossible, match="answers none"):
        forced_own(lm, QUESTIONS)
