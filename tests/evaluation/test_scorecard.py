"""Scorecard statistics on hand-made scores; fluency against a loop over tokens."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from cards import card, right, scores
from conceptlab.core import ConceptLabError, proportion
from conceptlab.data import (
    FEW_SHOT,
    Question,
    general_questions,
    held_out_passages,
    list_concepts,
    load_concept,
    question_stem,
)
from conceptlab.data.corpora import web_passages
from conceptlab.edits import WeightEdit
from conceptlab.edits.weight_edit import Dense
from conceptlab.evaluation import (
    Behaviour,
    Scorecard,
    ask,
    behaviour,
    compare,
    compare_writing,
    concept_questions,
    edit_effects,
    fluency,
    gold_logprobs,
    guess_corrected,
    harmonic_mean,
    relative_accuracy,
    score_form,
    score_questions,
    score_sets,
    scorecard,
)


def test_scores_of_questions():
    s = scores([True, False])
    assert s.gold.tolist() == [-1.0, -3.0] and s.margin.tolist() == [1.0, -1.0] and s.accuracy == 0.5


def test_relative_accuracy_by_hand():
    assert relative_accuracy(0.75, 0.5) == pytest.approx(0.5)
    assert relative_accuracy(0.75, 0.25) == 0 and relative_accuracy(0.75, 0.1) == 0  # chance and below
    assert relative_accuracy(0.75, 0.9) == 1  # no credit for more
    assert math.isnan(relative_accuracy(0.25, 0.9)) and math.isnan(relative_accuracy(0.1, 0.0))  # nothing to keep
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
    assert (change.accuracy_before.value, change.accuracy_after.value) == (0.75, 0.5)
    assert change.accuracy_before == proportion(15, 20) and change.accuracy_original == proportion(15, 20)
    assert change.redrawn == 1
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
    assert result.specificity[::2] == (1, 1) and result.specificity.low < 0.95, "twenty questions leave something open"
    assert result.efficacy.low == 0 and 0 < result.efficacy.high < 0.3 and result.coherence[:3] == (1, 1, 1)
    assert result.changes["target"].gold[:3] == (0, 0, 0)


def test_specificity_is_zero_when_one_set_is_lost():
    result = compare(card(right(15), right(15), right(15)), card(right(15), right(5), right(15)))
    assert result.specificity.value == 0


def test_known_questions_only():
    result = compare(card(right(10), right(20), right(20)), card(right(4), right(20), right(20)), known=True)
    assert result.changes["target"].accuracy_before.value == 1 and result.changes["target"].relative.n == 10
    assert result.changes["target"].relative.value == pytest.approx((0.4 - 0.25) / 0.75)
    change = result.changes["target"]
    assert change.accuracy_original == proportion(10, 20) and change.redrawn == pytest.approx((1 / 3) / 0.5)


def test_cards_that_do_not_match_are_refused():
    base = card(right(5), right(5), right(5), [1.0])
    with pytest.raises(ConceptLabError, match="questions are the same"):
        compare(base, card(right(5, of=21), right(5), right(5), [1.0]))
    with pytest.raises(ConceptLabError, match="n_texts"):
        compare(base, card(right(5), right(5), right(5), [1.0, 2.0]))
    other = Scorecard("tennis", "dev", base.scores)
    with pytest.raises(ConceptLabError, match="concept, split"):
        compare(base, other)


@pytest.mark.parametrize("base_right", [0, 3, 5, 8])
@pytest.mark.parametrize("known", [False, True])
def test_what_the_original_cannot_do_is_not_measurable(base_right, known):
    """Identical cards of a model that guesses: efficacy is neither 1 nor 0 (it was 1.00 at 22.5 %)."""
    base = card(right(base_right), right(18), right(18), [20.0, 30.0])
    found = compare(base, base, known=known)
    for axis in (found.efficacy, found.overall, found.changes["target"].relative):
        assert math.isnan(axis.value) and math.isnan(axis.low) and not axis.measurable
        assert "target questions rightly, and guessing gives 0.25" in str(axis)
    assert found.specificity.value == 1 and found.coherence.value == 1, "the other axes are what they are"
    other = compare(card(right(18), right(base_right), right(18)), card(right(9), right(3), right(18)), known=known)
    assert other.efficacy.measurable and not other.specificity.measurable and "neighbour" in other.specificity.reason
    assert other.changes["general"].relative.value == 1


def test_nine_of_forty_is_guessing():
    base = card(right(9, 40), right(30, 40), right(30, 40))
    assert not compare(base, base).efficacy.measurable and compare(base, base).specificity.measurable


def test_values_alone_cost_no_interval():
    base, after = (
        card(right(15), right(15), right(20), [20.0, 21.0]),
        card(right(10), right(14), right(20), [22.0, 22.0]),
    )
    quick, whole = compare(base, after, n_resamples=0), compare(base, after)
    for axis in ("efficacy", "specificity", "coherence", "overall"):
        mine, theirs = getattr(quick, axis), getattr(whole, axis)
        assert mine.value == pytest.approx(theirs.value) and not mine.bounded and theirs.bounded
        assert theirs.low <= theirs.value <= theirs.high
    assert quick.changes["target"].gold.value == whole.changes["target"].gold.value
    assert compare(base, after, n_resamples=2).efficacy.value == whole.efficacy.value
    with pytest.raises(ConceptLabError, match="0 \\(no intervals\\) or more; got -1"):
        compare(base, after, n_resamples=-1)


def with_unseen(found, **unseen):
    return replace(found, scores=found.scores | {f"unseen_{name}": scores(x) for name, x in unseen.items()})


def test_unseen_near_domains_have_an_axis_of_their_own():
    base = with_unseen(card(right(20), right(20), right(20)), rome=right(20), tea=right(20))
    after = with_unseen(card(right(8), right(20), right(20)), rome=right(5), tea=right(20))
    found = compare(base, after)
    assert found.specificity.value == 1 and found.specificity_unseen.value == pytest.approx(0.5)
    assert found.specificity_unseen.n == 40 and found.changes["unseen"].gold.value == pytest.approx(-0.75)
    assert found.changes["unseen_rome"].relative.value == 0 and found.changes["unseen_tea"].relative.value == 1
    plain = compare(card(right(20), right(20), right(20)), card(right(8), right(20), right(20)))
    assert plain.specificity_unseen is None and "unseen" not in plain.changes
    assert plain.specificity == found.specificity and plain.overall == found.overall, "the old axes keep their meaning"


def test_unseen_domains_are_asked_on_test_only():
    concept = load_concept("japan")
    near = SimpleNamespace(name="korea", title="Korea", test=concept.neighbour.test[:3])
    wide = replace(concept)
    object.__setattr__(wide, "near", (near,))
    assert concept_questions(wide, "test")["unseen_korea"] == near.test
    assert set(concept_questions(wide, "dev")) == {"target", "neighbour", "general"}
    assert set(concept_questions(replace(concept, neighbour=None), "dev")) == {"target", "general"}


def test_guess_corrected():
    assert guess_corrected(0.25, 4) == 0 and guess_corrected(1.0, 4) == 1 and guess_corrected(0.5, 2) == 0
    assert guess_corrected(0.625, 4) == pytest.approx(0.5) and guess_corrected(0.0, 4) < 0
    with pytest.raises(ConceptLabError, match="two options"):
        guess_corrected(0.5, 1)


Q = Question("q1", "Who?", ("a", "b", "c"), 0)
BAD = {
    "There is no question": [],
    "some with 2 and some with 3": [Q, replace(Q, id="q2", options=("a", "b"))],
    "q2 needs two or more options that differ": [Q, replace(Q, id="q2", options=("a", "b", "a"))],
    "q3 needs two or more options that differ": [replace(Q, id="q3", options=("a", "b", "a "))],
    "q4 needs two or more options": [replace(Q, id="q4", options=("a",))],
    "q5 needs two or more .* an answer that is one": [replace(Q, id="q5", answer=3)],
    "q6 needs two or more .* an answer that is one": [replace(Q, id="q6", answer=-1)],
    "q7 or one of its options is empty": [replace(Q, id="q7", q=" ")],
    "q8 or one of its options is empty": [replace(Q, id="q8", options=("a", "", "c"))],
    "q9 needs two or more options": [replace(Q, id="q9", options=())],
}


@pytest.mark.parametrize("told", BAD)
def test_questions_that_cannot_be_scored(tiny_llama, told):
    lm = tiny_llama()
    lm.hf = None  # the model is not asked
    for call in (score_questions, ask, lambda lm, qs: score_sets(lm, "golf", "dev", {"target": qs}, 0)):
        with pytest.raises(ConceptLabError, match=told):
            call(lm, BAD[told])
    with pytest.raises(ConceptLabError, match=told):
        score_form(lm, BAD[told], "question")


def test_nine_options_have_no_letters(tiny_llama):
    nine = replace(Q, options=tuple("abcdefghi"))
    with pytest.raises(ConceptLabError, match="letters for 8 options; question q1 has 9"):
        score_form(tiny_llama(), [nine], "choice")
    assert score_form(tiny_llama(), [nine], "question").logprobs.shape == (1, 9)
    assert score_form(tiny_llama(), [replace(Q, options=tuple("abcdefgh"))], "choice").logprobs.shape == (1, 8)


def test_settings_and_texts_without_sense(tiny_llama):
    lm, concept = tiny_llama(), load_concept("japan")
    lm.hf = None
    for told, call in {
        "n_questions=0": lambda: scorecard(lm, concept, n_questions=0),
        "n_questions=-1": lambda: scorecard(lm, concept, n_questions=-1),
        "0 or more; got -1": lambda: scorecard(lm, concept, n_questions=1, n_texts=-1),
        "got n=0": lambda: ask(lm, concept.dev, 0),
        "Text 1 of the fluency measurement is empty": lambda: fluency(lm, ["The cat sat.", " "]),
        "n_ctx=1": lambda: fluency(lm, ["The cat sat."], n_ctx=1),
        "batch_size=0": lambda: fluency(lm, ["The cat sat."], batch_size=0),
        "no question to ask": lambda: gold_logprobs(lm, []),
        "no dev questions of the set 'neighbour'": lambda: edit_effects(
            lm, [], replace(concept, neighbour=replace(concept.neighbour, dev=()))
        ),
        "at least one prompt": lambda: behaviour(lm, []),
        "none may be empty": lambda: behaviour(lm, ["A", ""]),
        "at least 3 tokens": lambda: behaviour(lm, n_tokens=2),
    }.items():
        with pytest.raises(ConceptLabError, match=told):
            call()


def test_a_model_that_overflows_is_not_one_that_forgot(tiny_llama):
    lm, concept = tiny_llama(), load_concept("japan")
    with lm.intervene({("resid_post", 1): lambda x: x * torch.inf}):
        for call in (
            lambda: score_questions(lm, concept.dev[:2]),
            lambda: gold_logprobs(lm, concept.dev[:2]),
            lambda: score_form(lm, concept.dev[:2], "choice"),
            lambda: fluency(lm, ["The cat sat on the mat."]),
        ):
            with pytest.raises(ConceptLabError, match="not finite: the model overflows"):
                call()


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
