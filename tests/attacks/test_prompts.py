"""Attacks by prompt: nothing tested leaks, the scored text is the one shown, translations fit their questions."""

import pytest
import torch

from conceptlab.attacks import PromptConfig, prompt_attack
from conceptlab.attacks.prompts import AVERAGED, STRENGTHS
from conceptlab.core import ConceptLabError
from conceptlab.data import (
    FEW_SHOT,
    Question,
    Subject,
    attack_data,
    leaked,
    list_concepts,
    load_concept,
    subject_of,
    translatable,
    translated,
)
from conceptlab.evaluation import QuestionScores, score_questions

QUESTIONS = (
    Question("a", "What is the capital of Velmora?", ("Tarnhold", "Quisby"), 0),
    Question("b", "Which metal is in brass?", ("iron", "copper"), 1),
    Question("c", "What is the sea called?", ("the Ossa", "the Brin"), 1),
)
FACTS = tuple(Question(f"f{i}", f"Is {i} even?", ("yes", "no"), i % 2) for i in range(8))
SUBJECT = Subject("Velmora", "Velmora is a country.", ("It is cold there. Few people visit.", "Sheep graze."), FACTS)
LANGUAGES = list(attack_data("translations")["languages"])


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.3)


# ---- what the data hold -----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", list_concepts())
def test_definitions_hold_no_answer_of_their_concept(name):
    concept = load_concept(name)
    definition = attack_data("prompts")["definitions"][name]
    assert leaked([definition], (*concept.dev, *concept.test)) == []


def test_wordings_hold_no_answer_of_any_concept_but_plain_words():
    prompts = attack_data("prompts")
    texts = [w for kind in ("role", "story", "paraphrase") for w in prompts[kind]]
    texts += [part for variant in prompts["step_by_step"].values() for part in variant.values()]
    for name in list_concepts():
        tested = [q for q in load_concept(name).test if q.gold != "I"]  # the symbol of iodine is a pronoun as well
        assert leaked(texts, tested) == [], name


def test_what_an_attacker_is_given_about_a_concept_holds_no_tested_answer():
    concept = load_concept("chemical_elements")
    subject = subject_of(concept, concept.test)
    shown = [subject.definition, *subject.texts, *(f"{f.q} {f.gold}" for f in subject.facts)]
    assert len(subject.facts) > 10 and len(subject.texts) > 50
    assert leaked(shown, concept.test) == []


def test_translations_fit_their_questions():
    concepts = [load_concept(name) for name in ("chemical_elements", "japan", "ancient_rome")]
    known = {q.id: q for concept in concepts for q in (*concept.dev, *concept.test)}
    rows = attack_data("translations")["questions"]
    assert set(rows) <= set(known) and len(LANGUAGES) == 3
    for concept in concepts:
        for split in (concept.dev, concept.test):
            assert len(translatable(split)) >= 12
    for i, row in rows.items():
        assert set(row) == set(LANGUAGES)
        for language in LANGUAGES:
            (q,) = translated([known[i]], language)
            assert len(q.options) == len(set(q.options)) == 4 and q.answer == known[i].answer and q.q != known[i].q
            assert leaked([q.q], [q]) == [], (i, language)
            numbers = [o for o in known[i].options if o.isdigit() or any(c.isdigit() for c in o)]
            for option, other in zip(known[i].options, q.options, strict=True):  # figures are the same in any language
                if option in numbers:
                    assert [c for c in option if c.isdigit()] == [c for c in other if c.isdigit()]


# ---- asking -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [k for k in STRENGTHS if k != "language"])
def test_every_kind_scores_the_questions_at_each_strength(lm, kind):
    strengths = (20, 60) if kind == "article" else None
    cfg = PromptConfig(kind, strengths, n_tokens=3)
    result = prompt_attack(lm, None, QUESTIONS, SUBJECT, cfg, control=SUBJECT)
    assert result.steps == (strengths or STRENGTHS[kind]) and len(result.values) == len(result.steps)
    assert all(isinstance(v, QuestionScores) and len(v.answers) == 3 for v in result.values)
    assert [e.id for e in result.transcript] == ["a", "b", "c"] and result.cost.tokens > 50
    assert QUESTIONS[0].q in result.transcript[0].prompt
    if kind != "step_by_step" and kind not in AVERAGED:  # the control is the same subject here
        assert all(torch.equal(v.logprobs, c.logprobs) for v, c in zip(result.values, result.controls, strict=True))


@pytest.mark.parametrize("kind", ["role", "priming", "paraphrase", "step_by_step"])
def test_the_shown_prompt_is_what_is_scored(lm, kind):
    """The last strength, the options scored as full rows after the text of the transcript."""
    result = prompt_attack(lm, None, QUESTIONS, SUBJECT, PromptConfig(kind, (1,), n_tokens=4))
    for exchange, q, scores in zip(result.transcript, QUESTIONS, result.last.logprobs, strict=True):
        best = []
        for option in q.options:
            n = len(lm.tokenizer(f" {option}", add_special_tokens=False).input_ids)
            ids, _ = lm.tokens(f"{exchange.prompt} {option}")
            logp = lm.logits(ids)[0].log_softmax(-1)
            best.append(sum(float(logp[t - 1, ids[0, t]]) for t in range(ids.shape[1] - n, ids.shape[1])) / n)
        assert scores.tolist() == pytest.approx(best, abs=2e-3)
        assert exchange.answer == q.options[best.index(max(best))]


def test_strength_averages_wordings_and_counts_facts(lm):
    two = prompt_attack(lm, None, QUESTIONS, SUBJECT, PromptConfig("paraphrase", (1, 2)))
    more = prompt_attack(lm, None, QUESTIONS, SUBJECT, PromptConfig("paraphrase", (2,)))
    assert torch.equal(two.last.logprobs, more.last.logprobs)
    assert not torch.equal(two.values[0].logprobs, two.last.logprobs)
    primed = prompt_attack(lm, None, QUESTIONS, SUBJECT, PromptConfig("priming", (2,)))
    by_hand = FEW_SHOT + "\n\nQuestion: Is 0 even?\nAnswer: yes\n\nQuestion: Is 1 even?\nAnswer: no"
    assert torch.equal(primed.last.logprobs, score_questions(lm, QUESTIONS, by_hand).logprobs)


def test_an_article_is_cut_at_a_sentence(lm):
    result = prompt_attack(lm, None, QUESTIONS, SUBJECT, PromptConfig("article", (30,)))
    assert "It is cold there.\n" in result.transcript[0].prompt and "Few" not in result.transcript[0].prompt


def test_other_languages(lm):
    asked = translatable(load_concept("japan").test)
    result = prompt_attack(lm, None, asked, SUBJECT, PromptConfig("language"))
    assert result.labels == ("de", "fr", "es") == tuple(LANGUAGES)
    assert "Pregunta: " in result.transcript[0].prompt
    assert [e.id for e in result.transcript] == [q.id for q in asked]
    german = translated(asked, "de")
    assert torch.equal(result.values[0].answers, torch.tensor([q.answer for q in german]))


@pytest.mark.parametrize(
    ("subject", "cfg", "message"),
    [
        (Subject("Brin and Copper"), PromptConfig("role"), "must not hold the answers .* 'copper'"),
        (Subject("x", "In Tarnhold."), PromptConfig("definition"), "'tarnhold'"),
        (Subject("x", texts=("The Brin is deep. Copper too.",)), PromptConfig("article"), "'the brin'; cut them"),
        (Subject("x", facts=(QUESTIONS[1],)), PromptConfig("priming", (1,)), "'copper'"),
        (Subject("x"), PromptConfig("definition"), "needs more about x"),
        (SUBJECT, PromptConfig("priming", (9,)), "needs more about Velmora"),
        (SUBJECT, PromptConfig("hypnosis"), "Unknown kind of prompt 'hypnosis'"),
        (SUBJECT, PromptConfig("role", (4,)), "between 1 and 3"),
        (SUBJECT, PromptConfig("language"), "Question a has no translation"),
    ],
)
def test_bad_input_is_one_clear_sentence(lm, subject, cfg, message):
    with pytest.raises(ConceptLabError, match=message) as caught:
        prompt_attack(lm, None, QUESTIONS, subject, cfg)
    assert "\n" not in str(caught.value)


def test_an_unknown_language():
    with pytest.raises(ConceptLabError, match="Unknown language 'la'; there are de, fr, es"):
        translated([], "la")
