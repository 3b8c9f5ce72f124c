"""Rankings of value vectors, the sets they are compared with, and what masking them does."""

import pytest
import torch

from conceptlab.core import ConceptLabError, NotPossible
from conceptlab.data import Question, load_concept
from conceptlab.edits import Dense, WeightEdit
from conceptlab.specialisation import (
    Masking,
    corpus_frequency,
    differential,
    equally_active,
    gap_interval,
    most_specific,
    overlap,
    question_activity,
    random_neurons,
    score_interval,
    shuffled_groups,
    specialisation_score,
    stems,
    subject_words,
    without_words,
    wordless,
    words_of,
)

TEXTS = ["The river runs north.", "Who was king?", "Gold"]


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama()


def by_hand(lm, text, position, signed):
    ids, _ = lm.tokens([text])
    rows = torch.stack([lm.capture(ids, [("neurons", i)])["neurons", i][0] for i in range(lm.n_layers)])
    rows = rows[:, 1:] if rows.shape[1] > 1 else rows * 0  # the first position does not count
    rows = rows if signed else rows.abs()
    return rows[:, -1] if position == "last" else rows.mean(1)


@pytest.mark.parametrize("position", ["all", "last"])
@pytest.mark.parametrize("signed", [True, False])
def test_activity_is_that_of_each_text_alone(lm, position, signed):
    found = question_activity(lm, TEXTS, position, signed)
    assert found.shape == (3, lm.n_layers, lm.d_mlp)
    for row, text in zip(found, TEXTS, strict=True):
        torch.testing.assert_close(row, by_hand(lm, text, position, signed), atol=1e-6, rtol=1e-4)


def test_other_positions_are_refused(lm):
    with pytest.raises(ConceptLabError, match="positions 'first'"):
        question_activity(lm, TEXTS, "first")


def test_differential_activity_is_a_difference_of_means():
    own, others = torch.tensor([[[3.0, 0.0]], [[1.0, 0.0]]]), torch.tensor([[[0.5, 1.0]]])
    assert differential(own, others).tolist() == [[1.5, -1.0]]


def test_the_most_specific_of_all_layers_or_of_each():
    scores = torch.tensor([[9.0, 8.0, 7.0, 0.0], [1.0, 2.0, 3.0, 4.0]])
    assert most_specific(scores, 0.25).nonzero().tolist() == [[0, 0], [0, 1]]
    assert most_specific(scores, 0.25, per_layer=True).nonzero().tolist() == [[0, 0], [1, 3]]
    assert most_specific(scores, 0.001).sum() == 1 and most_specific(scores, 1.0).all()
    for share in (0.0, 1.1):
        with pytest.raises(ConceptLabError, match="A share lies above 0"):
            most_specific(scores, share)


def test_controls_take_as_many_of_every_layer_and_none_of_the_chosen():
    scores = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    mask, activity = most_specific(scores, 0.1), torch.rand(3, 40)
    for control in (random_neurons(mask, 1), equally_active(mask, activity, 1)):
        assert control.sum(1).tolist() == mask.sum(1).tolist() and not (control & mask).any()
    assert not torch.equal(random_neurons(mask, 1), random_neurons(mask, 2))


def test_equally_active_vectors_are_as_active():
    activity = torch.arange(40.0)[None]
    mask = torch.zeros(1, 40, dtype=torch.bool)
    mask[0, [5, 20, 39]] = True
    found = activity[0][equally_active(mask, activity)[0]]
    assert (found.sort().values - torch.tensor([5.0, 20.0, 39.0])).abs().max() <= 1
    with pytest.raises(NotPossible, match="no match left"):
        equally_active(torch.ones(1, 4, dtype=torch.bool), torch.rand(1, 4))
    with pytest.raises(NotPossible, match="too few others"):
        random_neurons(torch.ones(1, 4, dtype=torch.bool))


def test_overlap_is_a_share_of_the_first():
    a, b = torch.zeros(2, 3, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.bool)
    a[0, :2], b[0, 1:] = True, True
    assert overlap([a, b, ~a]).tolist() == [[1.0, 0.5, 0.0], [0.5, 1.0, 0.5], [0.0, 0.25, 1.0]]


def test_shuffled_groups_deal_every_question_once():
    groups = shuffled_groups([3, 5, 2], 0)
    assert [len(g) for g in groups] == [3, 5, 2] and sorted(sum(groups, [])) == list(range(10))
    assert groups != shuffled_groups([3, 5, 2], 1)


# ---- masking ------------------------------------------------------------------------------------------------
def test_masked_coefficients_are_zeroed_vectors(lm):
    mask = torch.rand(lm.n_layers, lm.d_mlp, generator=torch.Generator().manual_seed(0)) < 0.3
    ids, _ = lm.tokens(["What is the capital of Poland?"])
    before = lm.logits(ids)
    names = {lm.down_proj_name(i): i for i in range(lm.n_layers)}
    zeroed = {n: Dense(-lm.parameters()[n] * mask[i].float()) for n, i in names.items()}
    with WeightEdit.of(lm, zeroed).applied(lm):
        expected = lm.logits(ids)
    with Masking(mask).applied(lm):
        found = lm.logits(ids)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, before) and torch.equal(lm.logits(ids), before)
    with pytest.raises(ConceptLabError, match="value vectors; the mask is"):
        Masking(mask[:1]).applied(lm)


def test_the_score_of_the_paper():
    assert specialisation_score(0.8, 0.6, 0.2) == pytest.approx(0.5)
    assert specialisation_score(0.8, 0.2, 0.6) == pytest.approx(0.5), "the sign is lost"
    with pytest.raises(ConceptLabError, match="nothing is known"):
        specialisation_score(0.0, 0.0, 0.0)


def test_intervals_of_score_and_gap():
    generator = torch.Generator().manual_seed(0)
    before, after, specific = (torch.rand(60, generator=generator) < p for p in (1.1, 0.9, 0.3))
    score = score_interval(before.float(), after.float(), specific.float())
    assert score.low < score.value < score.high and 0.3 < score.value < 0.9
    none = score_interval(before.float(), after.float(), after.float())
    assert none.value == 0 and none.high > 0.05
    gap = gap_interval(torch.randn(40, generator=generator) + 2, torch.randn(30, generator=generator))
    assert 1 < gap.low < gap.value < gap.high < 3


# ---- words --------------------------------------------------------------------------------------------------
def test_words_of_the_subject_are_found_and_taken_out():
    golf, japan = load_concept("golf"), load_concept("japan")
    words = subject_words(golf, japan.dev)
    assert "golf" in words and "golfer" in words and not words & {"the", "what", "which", "for"}
    assert without_words(["Golf is fun; in GOLF, golfing."], frozenset({"golf"})) == ["it is fun; in it, golfing."]
    assert words_of("The Yen's 5 caf\u00e9s") == ["the", "yen", "s", "5", "caf\u00e9s"]
    assert stems(golf.dev[:1]) == [f"Question: {golf.dev[0].q}\nAnswer:"]


def test_wordless_questions_are_clues_without_the_words():
    options = ("a", "b")
    asked = [
        Question("1", "Golf?", options, 1, clue="Which sport needs a green?"),
        Question("2", "Golf?", options, 0, clue="Which golf club?"),
        Question("3", "Golf?", options, 0),
    ]
    (found,) = wordless(asked, frozenset({"golf"}))
    assert (found.id, found.q, found.gold) == ("1-clue", "Which sport needs a green?", "b")


def test_frequency_counts_words_of_the_list_per_million():
    golf, japan = load_concept("golf"), load_concept("japan")
    found = corpus_frequency([golf, japan], ["golf " + "x " * 99, "y " * 100])
    assert found == pytest.approx([5000, 0]) and corpus_frequency([golf], []) == [0]
