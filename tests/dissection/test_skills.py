"""Skills forgotten by random labels: labels that say nothing, what is asked and trained, and the forget gap."""

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.dissection import (
    SKILL_PROMPT,
    Answered,
    Items,
    answered,
    by_group,
    dealt_labels,
    label_rows,
    label_tokens,
    tuned,
    word_salad,
)
from conceptlab.erasure import TuningConfig

TEXTS = ("The keys", "The key near the old cabinets", "A dog", "Dogs of the house")


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(n_layers=2)


def test_dealt_labels_say_nothing_about_the_true_ones():
    true = [0] * 30 + [1] * 60 + [2] * 9
    dealt = dealt_labels(true, 3, seed=1)
    counts = torch.zeros(3, 3, dtype=torch.long)
    for a, b in zip(true, dealt, strict=True):
        counts[a, b] += 1
    assert counts.tolist() == [[10] * 3, [20] * 3, [3] * 3]
    assert dealt == dealt_labels(true, 3, seed=1) != dealt_labels(true, 3, seed=2)


def test_what_cannot_be_shared_out_is_drawn_from_different_classes():
    dealt = dealt_labels([0] * 5, 3)
    assert sorted(dealt.count(c) for c in range(3)) == [1, 2, 2]


def test_a_salad_has_as_many_words_from_elsewhere():
    salad = word_salad(TEXTS, ["one two three"], seed=0)
    assert [len(s.split()) for s in salad] == [len(t.split()) for t in TEXTS]
    assert {w for s in salad for w in s.split()} <= {"one", "two", "three"}
    assert salad == word_salad(TEXTS, ["one two three"], seed=0)


def test_a_row_ends_with_the_one_scored_token(lm):
    rows = label_rows(lm, TEXTS, [0, 1, 1, 0], ("good", "bad"))
    tokens = label_tokens(lm, ("good", "bad"))
    for row, text, label in zip(rows, TEXTS, [0, 1, 1, 0], strict=True):
        assert row.ids == [*lm.start_ids, *lm.encode(SKILL_PROMPT.format(text)), tokens[label]]
        assert row.start == len(row.ids) - 1


def test_words_with_one_first_token_are_refused(lm):
    with pytest.raises(ConceptLabError, match="same token"):
        label_tokens(lm, ("good", "good"))


def test_answers_are_those_of_every_text_alone(lm):
    words = ("good", "bad", "old")
    found = answered(lm, Items(TEXTS, (0, 1, 2, 0)), words, batch_size=3)
    for i, text in enumerate(TEXTS):
        ids = torch.tensor([[*lm.start_ids, *lm.encode(SKILL_PROMPT.format(text))]])
        with torch.no_grad():
            alone = lm.logits(ids)[0, -1].float().log_softmax(-1)[label_tokens(lm, words)]
        assert torch.allclose(found.logprobs[i], alone, atol=1e-4)


def test_right_margin_and_given_labels_by_hand():
    said = Answered(torch.tensor([[-1.0, -3.0, -2.0], [-4.0, -1.0, -2.0]]), torch.tensor([0, 2]))
    assert said.right.tolist() == [True, False]
    assert said.margin.tolist() == pytest.approx([1.0, -1.0])
    assert said.says([1, 1]).tolist() == [False, True]


def test_training_learns_the_given_labels_and_leaves_the_model(lm):
    words, labels = ("good", "bad"), (1, 1, 1, 1)
    before = {name: p.detach().clone() for name, p in lm.parameters().items()}
    asked = Items(TEXTS, labels)
    config = TuningConfig(steps=20, batch_size=4, lr=1e-2, weights="all")
    edit = tuned(lm, label_rows(lm, TEXTS, labels, words), config)
    assert all(torch.equal(before[name], p) for name, p in lm.parameters().items())
    start = answered(lm, asked, words).margin.mean()
    with edit.applied(lm):
        assert answered(lm, asked, words).margin.mean() > start + 1


def test_groups_are_units():
    assert by_group(torch.tensor([1.0, 0.0, 4.0]), (7, 7, 2)).tolist() == [4.0, 0.5]
    assert by_group(torch.tensor([True, False]), ()).tolist() == [1.0, 0.0]
    with pytest.raises(ConceptLabError, match="name one"):
        by_group(torch.zeros(3), (1, 2))


def test_items_need_a_label_each():
    with pytest.raises(ConceptLabError, match="label"):
        Items(TEXTS, (0, 1))
