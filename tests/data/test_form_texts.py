"""Facts as training texts: the words are those that the same form is asked in; the fiction as a concept."""

import pytest

from conceptlab.core import ConceptLabError
from conceptlab.data import FORMS, Question, evidence_texts, fiction_concept, form_texts, leaked, load_fiction
from conceptlab.erasure import SharedConfig

FACT = Question("a", "What is tin?", ("a gas", "a metal"), 1, "Tin is {}.", "Cans are made of what?")
PLAIN = Question("b", "What is air?", ("a gas", "a metal"), 0)


def test_each_form_ends_with_its_answer():
    found = {form: form_texts([FACT, PLAIN], form) for form in FORMS}
    assert found["question"] == ["Question: What is tin?\nAnswer: a metal", "Question: What is air?\nAnswer: a gas"]
    assert found["cloze"] == ["Fact: Tin is a metal."]
    assert found["choice"][0] == "Question: What is tin?\nA. a gas\nB. a metal\nAnswer: B"
    assert found["true_false"] == ["Statement: Tin is a metal.\nTrue or false? Answer: true"]
    assert found["clue"] == ["Question: Cans are made of what?\nAnswer: a metal"]
    with pytest.raises(ConceptLabError, match="None of 1 facts can be put as clue"):
        form_texts([PLAIN], "clue")
    with pytest.raises(ConceptLabError, match="one or more of question, cloze"):
        SharedConfig(forms=("rhyme",))


def test_the_fiction_as_a_concept():
    fiction = load_fiction()
    concept = fiction_concept(fiction)
    assert len(concept.dev) == len(concept.test) == 16 and not set(concept.dev) & set(concept.test)
    own, near, far = evidence_texts(concept, 6)
    assert len(own) == len(near) == len(far) == 6 and set(own) <= set(fiction.texts)
    assert leaked(concept.texts(), fiction.questions) == []
    assert concept.neighbour.dev and concept.neighbour.test
    assert len(form_texts(concept.dev, "cloze")) == 16
