"""The concept files keep their schema, and relearning texts keep the answers to themselves."""

import re

import pytest

from conceptlab.core import ConceptLabError, data_dir
from conceptlab.data import Article, concepts, general_questions, list_concepts, load_concept
from conceptlab.data.concepts import TextQuery
from conceptlab.data.selections import COURSE_CONCEPTS, course_texts

NAMES = sorted(p.stem for p in (data_dir() / "concepts").glob("*.yaml") if p.stem != "general")
SPLITS = ("dev", "test")


def sets(name):
    """Every (label, questions of both splits) of one file."""
    if name == "general":
        return [(name, {s: general_questions(s) for s in SPLITS})]
    concept = load_concept(name)
    return [(c.name, {s: getattr(c, s) for s in SPLITS}) for c in (concept, concept.neighbour)]


@pytest.mark.parametrize("name", [*NAMES, "general"])
def test_questions(name):
    for label, splits in sets(name):
        for split, questions in splits.items():
            assert len(questions) >= 40, f"{label} {split}"
            for q in questions:
                assert q.q.strip() and len(q.options) == 4 and len(set(q.options)) == 4, q.id
                assert 0 <= q.answer < 4 and q.gold == q.options[q.answer]
            for position in range(4):
                share = sum(q.answer == position for q in questions) / len(questions)
                assert 0.15 <= share <= 0.35, f"{label} {split}: option {position} is right in {share:.0%}"
        asked = {s: {plain(q.q) for q in questions} for s, questions in splits.items()}
        assert not asked["dev"] & asked["test"], label
        ids = [q.id for questions in splits.values() for q in questions]
        assert len(ids) == len(set(ids))


def plain(question):
    return re.sub(r"\W+", " ", question.lower()).strip()


@pytest.mark.parametrize("name", NAMES)
def test_a_concept(name):
    concept = load_concept(name)
    assert concept.name == name and concept.title and concept.neighbour.name != name
    assert concept.neighbour.neighbour is None
    for c in (concept, concept.neighbour):
        assert len(c.words) >= 20 and len(set(c.words)) == len(c.words)
        assert len(c.articles()) >= (40 if name in COURSE_CONCEPTS else 4), c.name  # the corpus has six leads on golf
    assert not set(concept.words) & set(concept.lookalikes)
    titles = {a.title for a in concept.articles()}
    shared = titles & {a.title for a in concept.neighbour.articles()}
    assert len(shared) <= 0.3 * len(titles), shared


@pytest.mark.parametrize("name", NAMES)
def test_words_are_mostly_single_tokens(name, smollm2):
    words = load_concept(name).words
    assert len(smollm2.single_tokens(words)) >= 0.5 * len(words)


@pytest.mark.parametrize("name", NAMES)
def test_no_relearning_text_holds_a_test_answer(name):
    concept = load_concept(name)
    texts = concept.texts(without_answers=concept.test)
    assert texts and all(texts)
    joined = "\n".join(texts).lower()
    for q in concept.test:
        found = re.search(rf"(?<!\w){re.escape(q.gold.lower())}(?!\w)", joined)
        assert found is None, f"{q.id}: {q.gold}"
    assert len(" ".join(texts)) < len(" ".join(concept.texts()))


def test_texts_cuts_sentences_not_words(monkeypatch):
    article = Article("X", "Tin is a metal. Tinker is no metal! Is lead one? Gold glitters.", "t", "")
    query = TextQuery(frozenset({"X"}))
    concept = concepts.Concept("c", "C", (), (), query, (), ())
    monkeypatch.setattr(concepts, "vital_articles", lambda: (article,))
    question = concepts.Question("1", "q?", ("tin", "b"), 0)
    assert concept.texts() == [article.text]
    assert concept.texts(without_answers=[question]) == ["Tinker is no metal! Is lead one? Gold glitters."]


def test_written_texts_stand_beside_those_of_the_corpus():
    concept = load_concept("golf")
    found = [a for a in concepts.vital_articles() if concept.query.matches(a)]
    assert len(concept.written) >= 20 and concept.articles() == [*found, *concept.written]
    assert not {a.title for a in found} & {a.title for a in concept.written}
    assert load_concept("japan").written == ()


def test_text_queries():
    def lead(text, title="T", topic="Arts"):
        return Article(title, text, topic, "")

    query = TextQuery(frozenset({"Gold"}), ("noble gas", "iron", "tin"), 2, frozenset({"Arts"}))
    assert query.matches(lead("nothing", title="Gold", topic="History")), "a title needs no keyword and no topic"
    assert query.matches(lead("Iron and tin.")) and query.matches(lead("A noble gas is not iron."))
    assert not query.matches(lead("Iron alone, in irons.")) and not query.matches(lead("Tinned iron"))
    assert not query.matches(lead("Iron and tin.", topic="History"))
    assert not TextQuery(frozenset({"Gold"})).matches(lead("iron")), "no keywords: titles only"


def test_the_course_text_is_stable():
    texts = course_texts()
    assert texts == course_texts()
    held = set(texts)
    for name in COURSE_CONCEPTS:
        concept = load_concept(name)
        assert {a.text for a in (*concept.articles(), *concept.neighbour.articles())} <= held
    assert len(texts) - len(course_texts(n_general=0)) == 600


# ---- bad input -------------------------------------------------------------------------------------------
def test_an_unknown_concept_lists_the_known():
    with pytest.raises(ConceptLabError, match="No concept 'golfing'") as caught:
        load_concept("golfing")
    assert all(name in str(caught.value) for name in list_concepts()) and "general" not in list_concepts()


# ---- unseen near domains ---------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_an_unseen_near_domain(name):
    concept = load_concept(name)
    assert len(concept.near) == 1
    (near,) = concept.near
    assert near.name not in {*NAMES, *(load_concept(n).neighbour.name for n in NAMES)}, "neither concept nor neighbour"
    assert len(near.test) >= 16 and len(near.words) >= 12 and len(set(near.words)) == len(near.words)
    assert not set(near.words) & set(concept.words)
    tested = {q.gold.lower() for q in concept.test}
    for q in near.test:
        assert len(q.options) == 4 and q.q.endswith("?") and not (q.claim or q.clue)
        assert q.gold.lower() not in tested, q.id
        assert not re.search(rf"(?<!\w){re.escape(q.gold)}(?!\w)", q.q, re.I), f"{q.id} gives its answer away"
        for gold in tested - {"south korea", "war", "white"}:  # words that a question on Korea or on teeth cannot avoid
            assert not re.search(rf"(?<!\w){re.escape(gold)}(?!\w)", f"{q.q} {q.gold}", re.I), f"{q.id}: {gold}"
    for position in range(4):
        assert 0.2 <= sum(q.answer == position for q in near.test) / len(near.test) <= 0.3
    others = {plain(q.q) for c in (concept, concept.neighbour) for q in (*c.dev, *c.test)}
    assert not others & {plain(q.q) for q in near.test}
    asked = {plain(q.q) for split in SPLITS for q in general_questions(split)}
    assert not asked & {plain(q.q) for q in near.test}
