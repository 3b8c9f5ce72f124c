"""Writing: n-grams by hand, rules on answers made here, batched decoding against one prompt at a time."""

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.data import load_concept
from conceptlab.edits import WeightEdit
from conceptlab.edits.weight_edit import Dense
from conceptlab.evaluation import Behaviour, QuestionScores, Scorecard, behaviour, compare, scorecard
from conceptlab.evaluation.writing import INSTRUCTIONS, distinct_share
from conceptlab.models import chat_rows, greedy


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.5)


def test_distinct_share_by_hand():
    assert distinct_share([1, 2, 3, 4], 2) == 1.0
    assert distinct_share([1, 2, 1, 2, 1], 2) == 0.5  # 12 21 12 21
    assert distinct_share([7] * 10, 3) == 1 / 8
    assert distinct_share([1, 2], 3) == 0.0
    with pytest.raises(ConceptLabError, match="at least one token"):
        distinct_share([1], 0)


def test_greedy_in_batches_equals_argmax_one_by_one(lm):
    prompts = ["The cat", "It rained for three days, so we", "One"]
    rows = [lm.tokenizer(p).input_ids for p in prompts]
    found = greedy(lm, rows, 6, batch_size=2)
    for row, got in zip(rows, found, strict=True):
        want = list(row)
        for _ in range(6):
            want.append(int(lm.logits(torch.tensor([want]))[0, -1].argmax()))
        stop = lm.tokenizer.eos_token_id
        new = want[len(row) :]
        assert got == (new[: new.index(stop)] if stop in new else new)
    with pytest.raises(ConceptLabError, match="every prompt a token"):
        greedy(lm, [[1], []], 2)


def test_a_chat_model_is_addressed_by_its_template(lm):
    text = lm.tokenizer.decode(chat_rows(lm, ["Say hello."])[0])
    assert text.endswith("<|im_start|>user\nSay hello.<|im_end|>\n<|im_start|>assistant\n")
    lm.tokenizer.chat_template = None
    assert lm.tokenizer.decode(chat_rows(lm, ["Say hello."])[0]) == "User: Say hello.\nAssistant:"


CASES = (  # one good and one bad answer for each instruction, in their order
    ("Honey.", "Bees make honey."), ("Yes, it is.", "It is cold."), ("No.", "Fish swim."), ("False", "A chair stands."),
    ("HOUSE", "The house"), ("Apples, pears, plums", "Apples and pears"), ("1. red\n2. blue\n3. green", "red and blue"),
    ("- a pot\n- a pan\n- a spoon\n- a", "A pot and a pan"), ("The door is open.", "The window"),
    ("I like green\napples!", "I like apples"), ("Window", "I say nothing."), ("1, 2, 3, 4, 5", "1 3 2"),
    ("Hello! I am fine.", "I am fine. Hello!"), ("Sure, I can.", "I can."), ("4", "A dog has 4 legs."),
    ("Take an umbrella.", "An umbrella is wet."), ("An umbrella is wet.", "It rains."), ("A horse ran.", "A dog ran."),
    ("The bridge over the river is old.", "The bridge is old."), ("How was your day?", "Tell me."),
    ("What is your name?", "Who are you?"), ('"hello"', "hello"), ("For sitting.", "It is for people to sit on it."),
    ("Wow!", "Wow."),
)  # fmt: skip


def test_every_rule_tells_a_good_answer_from_a_bad_one():
    for instruction, (good, bad) in zip(INSTRUCTIONS, CASES, strict=True):
        assert instruction.rule(good), instruction.text
        assert not instruction.rule(bad), instruction.text
        assert not instruction.rule("") and not instruction.rule("the the the the the the"), instruction.text


def test_instructions_touch_no_concept():
    names = [w.lower() for c in ("golf", "japan", "uranium", "golf") for w in load_concept(c).words]
    assert not any(f" {name} " in i.text.lower() for name in names for i in INSTRUCTIONS)


def card(distinct, follows, nll=None):
    scores = QuestionScores(torch.tensor([[-1.0, -2.0]]).repeat(9, 1), torch.zeros(9, dtype=torch.long))
    writing = Behaviour(torch.tensor(distinct), torch.tensor(follows), (), ())
    return Scorecard("golf", "dev", {"target": scores}, None, writing)


def test_coherence_is_the_harmonic_mean_of_its_parts():
    base = card([1.0, 0.8], [1.0, 1.0, 0.0, 0.0])
    result = compare(base, card([0.5, 0.4], [1.0, 0.0, 0.0, 0.0]))
    assert result.parts["repetition"].value == pytest.approx(0.5)
    assert result.parts["instructions"].value == pytest.approx(0.5)
    assert result.coherence.value == pytest.approx(0.5)
    more = compare(base, card([1.0, 1.0], [1.0, 1.0, 1.0, 0.0])).coherence
    assert more.value == more.high == 1 and more.low < 1  # no credit for more, and four instructions are few
    assert compare(base, card([1.0, 0.8], [0.0, 0.0, 0.0, 0.0])).coherence.value == 0
    deaf = card([1.0, 0.8], [0.0, 0.0, 0.0, 0.0])
    assert set(compare(deaf, base).parts) == {"repetition"}, "a model that follows nothing has nothing to lose"


def test_the_card_of_a_model_that_was_broken(lm):
    concept = load_concept("japan")
    base = scorecard(lm, concept, n_questions=2, n_texts=2, writing=True)
    name = lm.down_proj_name(1)
    noise = torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    with WeightEdit(lm.name, {name: Dense(50 * noise)}).applied(lm):
        after = scorecard(lm, concept, n_questions=2, n_texts=2, writing=True)
    assert base.writing.continuations != after.writing.continuations
    found = compare(base, after)
    assert {"perplexity", "repetition"} <= set(found.parts)
    again = behaviour(lm)
    assert torch.equal(again.distinct, base.writing.distinct) and again.answers == base.writing.answers
    with pytest.raises(ConceptLabError, match="same writing="):
        compare(base, scorecard(lm, concept, n_questions=2, n_texts=2))
