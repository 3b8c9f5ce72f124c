"""Scorecard statistics on hand-made scores; fluency against a loop over tokens."""

import math

import pytest
import torch

from cards import card, right, scores
from conceptlab.core import ConceptLabError, bootstrap, paired_bootstrap
from conceptlab.data import FEW_SHOT, general_questions, held_out_passages, list_concepts, load_concept, question_stem
from conceptlab.data.corpora import web_passages
from conceptlab.edits import WeightEdit
from conceptlab.edits.weight_edit import Dense
from conceptlab.evaluation import (
    Behaviour,
    Scorecard,
    compare,
    compare_writing,
    edit_effects,
    fluency,
    gold_logprobs,
    harmonic_mean,
    relative_accuracy,
    score_questions,
    scorecard,
)


def test_scores_of_questions():
    s = scores([True, False])
    assert s.gold.tolist() == [-1.0, -3.0] and s.margin.tolist() == [1.0, -1.0] and s.accuracy == 0.5


def test_relative_accuracy_by_hand():
    assert relative_accuracy(0.75, 0.5) == pytest.approx(0.5)
    assert relative_accuracy(0.75, 0.25) == 0 and relative_accuracy(0.75, 0.1) == 0  # chance and below
    assert relative_accuracy(0.75, 0.9) == 1  # no credit for more
    assert relative_accuracy(0.25, 0.9) == 0  # nothing to keep
    assert relative_accuracy(1.0, 0.75, chance=0.5) == pytest.approx(0.5)


def test_harmonic_mean_punishes_a_zero():
    assert float(harmonic_mean([1.0, 0.5])) == pytest.approx(2 / 3)
    assert float(harmonic_mean([1.0, 1.0, 0.0])) == 0
    assert float(harmonic_mean([1.0, -0.1])) == 0
    assert harmonic_mean([torch.tensor([1.0, 0.0]), torch.tensor([0.5, 1.0])]).tolist() == pytest.approx([2 / 3, 0])
    with pytest.raises(ConceptLabError, match="at least one"):
        harmonic_mean([])


def test_compare_by_hand():
    base = card(right(15), right(15), right(20), [20.0, 20.0])
    after = card(right(10), right(15), right(20), [20.0 + 10 * math.log(2), 20.0 + 10 * math.log(2)])
    result = compare(base, after)
    change = result.changes["target"]
    assert (change.accuracy_before, change.accuracy_after) == (0.75, 0.5)
    assert change.relative.value == pytest.approx(0.5) and change.relative.low < 0.5 < change.relative.high
    assert change.gold.value == pytest.approx(-0.5)  # 5 of 20 fell by 2 nats
    assert result.efficacy.value == pytest.approx(0.5) and result.specificity.value == pytest.approx(1)
    assert result.coherence.value == pytest.approx(0.5)  # perplexity doubled
    assert result.overall.value == pytest.approx(float(harmonic_mean([0.5, 1.0, 0.5])))
    assert [x.n for x in (result.efficacy, result.specificity, result.coherence, result.overall)] == [20, 20, 2, 2]
    silent = compare(card(right(15), right(15), right(20)), card(right(10), right(15), right(20)))
    assert (silent.coherence.n, silent.overall.n) == (0, 20)  # no texts were measured


def test_nothing_changed_means_no_efficacy_and_full_specificity():
    base = card(right(15), right(12), right(18), [20.0, 30.0])
    result = compare(base, base)
    assert result.efficacy.value == 0 and result.overall.value == 0
    assert result.specificity[:3] == (1, 1, 1) and result.coherence[:3] == (1, 1, 1)
    assert result.changes["target"].gold[:3] == (0, 0, 0)


def test_specificity_is_zero_when_one_set_is_lost():
    result = compare(card(right(15), right(15), right(15)), card(right(15), right(5), right(15)))
    assert result.specificity.value == 0


def test_known_questions_only():
    result = compare(card(right(10), right(20), right(20)), card(right(4), right(20), right(20)), known=True)
    assert result.changes["target"].accuracy_before == 1 and result.changes["target"].relative.n == 10
    assert result.changes["target"].relative.value == pytest.approx((0.4 - 0.25) / 0.75)
    with pytest.raises(ConceptLabError, match="no target question"):
        compare(card(right(0), right(1), right(1)), card(right(0), right(1), right(1)), known=True)


def test_cards_that_do_not_match_are_refused():
    base = card(right(5), right(5), right(5), [1.0])
    with pytest.raises(ConceptLabError, match="questions are the same"):
        compare(base, card(right(5, of=21), right(5), right(5), [1.0]))
    with pytest.raises(ConceptLabError, match="n_texts"):
        compare(base, card(right(5), right(5), right(5), [1.0, 2.0]))
    other = Scorecard("tennis", "dev", base.scores)
    with pytest.raises(ConceptLabError, match="concept, split"):
        compare(base, other)


def test_bootstrap_interval_covers_and_pairs_help():
    assert bootstrap([2.0, 2.0, 2.0])[:3] == (2, 2, 2)
    a = torch.randn(200, generator=torch.Generator().manual_seed(0))
    found = bootstrap(a)
    half = 1.96 * float(a.std()) / 200**0.5
    assert found.low == pytest.approx(float(a.mean()) - half, abs=0.03)
    assert found.high == pytest.approx(float(a.mean()) + half, abs=0.03)
    assert paired_bootstrap(a + 1, a)[:3] == pytest.approx((1, 1, 1))
    with pytest.raises(ConceptLabError, match="at least one value"):
        bootstrap([])
    with pytest.raises(ConceptLabError, match="same items"):
        paired_bootstrap([1.0], [1.0, 2.0])


def test_fluency_against_a_loop(tiny_llama):
    lm = tiny_llama()
    texts = ["The cat sat on the mat.", "Snow is white and grass is green in May."]
    found = fluency(lm, texts, n_ctx=8)
    for i, text in enumerate(texts):
        ids = lm.tokenizer(text).input_ids[:8]
        losses = []
        for t in range(1, len(ids)):
            logits = lm.logits(torch.tensor([ids[:t]]))[0, -1].double()
            losses.append(-float(logits.log_softmax(-1)[ids[t]]))
        assert float(found.nll[i]) == pytest.approx(sum(losses), rel=1e-5)
        assert int(found.n_tokens[i]) == len(losses)
    assert found.perplexity == pytest.approx(math.exp(float(found.nll.sum()) / float(found.n_tokens.sum())))
    with pytest.raises(ConceptLabError, match="at least one text"):
        fluency(lm, [])
    with pytest.raises(ConceptLabError, match="two tokens"):
        fluency(lm, ["a"])


def test_scorecard_sees_an_intervention_and_leaves_no_trace(tiny_llama):
    lm, concept = tiny_llama(), load_concept("japan")
    arguments = dict(n_questions=4, n_texts=2)
    base = scorecard(lm, concept, **arguments)
    assert base.concept == "japan" and set(base.scores) == {"target", "neighbour", "general"}
    name = lm.down_proj_name(1)
    edit = WeightEdit(lm.name, {name: Dense(torch.randn(16, 32, generator=torch.Generator().manual_seed(0)))})
    with edit.applied(lm):
        after = scorecard(lm, concept, **arguments)
    again = scorecard(lm, concept, **arguments)
    assert not torch.equal(base.scores["target"].logprobs, after.scores["target"].logprobs)
    assert torch.equal(base.scores["target"].logprobs, again.scores["target"].logprobs)
    assert torch.equal(base.text.nll, again.text.nll)


def test_scorecard_bad_input(tiny_llama):
    lm, concept = tiny_llama(), load_concept("japan")
    with pytest.raises(ConceptLabError, match="'dev' or 'test'"):
        scorecard(lm, concept, split="train")
    with pytest.raises(ConceptLabError, match="Unknown set"):
        scorecard(lm, concept, sets=("targets",))


def test_gold_logprobs_and_effects_agree_with_full_scores(tiny_llama):
    lm, concept = tiny_llama(), load_concept("japan")
    questions = concept.dev[:5]
    assert torch.allclose(gold_logprobs(lm, questions), score_questions(lm, questions).gold, atol=1e-5)
    edit = WeightEdit(lm.name, {lm.down_proj_name(1): Dense(torch.ones(16, 32))})
    effects = edit_effects(lm, [edit, edit * 0.0], concept, n_questions=3)
    base = scorecard(lm, concept, n_questions=3, n_texts=0)
    with edit.applied(lm):
        after = scorecard(lm, concept, n_questions=3, n_texts=0)
    want = [c.gold.value for c in compare(base, after).changes.values()]
    assert effects[0].tolist() == pytest.approx(want, abs=1e-4) and effects[1].abs().max() == 0


def all_questions():
    concepts = [load_concept(name) for name in list_concepts()]
    both = [c for concept in concepts for c in (concept, concept.neighbour)]
    return [q for c in both for q in (*c.dev, *c.test)] + [q for s in ("dev", "test") for q in general_questions(s)]


def test_the_few_shot_examples_are_none_of_the_questions():
    answers = {line.removeprefix("Answer: ").lower() for line in FEW_SHOT.splitlines() if line.startswith("Answer")}
    asked = {line for line in FEW_SHOT.splitlines() if line.startswith("Question")}
    assert len(answers) == len(asked) == 4
    for q in all_questions():
        assert q.gold.lower() not in answers and f"Question: {q.q}" not in asked, q.id


def test_pieces_are_tokenised_as_the_whole_prompt_would_be(bundled):
    """Examples, stem and option meet at token boundaries, so scoring them apart is scoring the text."""
    ids = lambda text, **kwargs: bundled.tokenizer(text, **kwargs).input_ids  # noqa: E731
    for q in all_questions():
        pieces = [ids(part, add_special_tokens=False) for part in (question_stem(q), f" {q.gold}")]
        assert ids(FEW_SHOT) + pieces[0] + pieces[1] == ids(f"{FEW_SHOT}{question_stem(q)} {q.gold}"), q.id


def test_passages_of_dev_and_test_are_held_out_and_different():
    dev, test = (held_out_passages(split, 100) for split in ("dev", "test"))
    assert len({*dev, *test}) == 200 and {*dev, *test} == {*web_passages()[:200]}
    assert held_out_passages("dev", 3) == dev[:3]
    for split, n in (("train", 3), ("dev", 0), ("test", 101)):
        with pytest.raises(ConceptLabError, match="1 to 100 passages for 'dev' and for 'test'"):
            held_out_passages(split, n)


def test_writing_by_hand():
    def written(distinct, follows):
        return Behaviour(torch.tensor(distinct), torch.tensor(follows), (), ())

    base = written([1.0, 1.0], [1.0, 1.0, 0.0, 0.0])
    found = compare_writing(base, written([0.5, 1.0], [1.0, 0.0, 0.0, 0.0]))
    assert found["repetition"].value == pytest.approx(0.75) and found["repetition"].n == 2
    assert found["instructions"].value == pytest.approx(0.5) and found["instructions"].n == 4
    nothing = compare_writing(written([1.0], [0.0]), written([1.0], [1.0]))
    assert set(nothing) == {"repetition"}, "where no instruction was followed, none can be lost"
