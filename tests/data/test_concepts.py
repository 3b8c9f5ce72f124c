"""The concept files keep their schema, and relearning texts keep the answers to themselves."""

import re

import pytest
import yaml

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


def broken(tmp_path, change):
    raw = yaml.safe_load((data_dir() / "concepts" / f"{NAMES[0]}.yaml").read_text())
    change(raw)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_a_file_that_is_no_yaml(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: [golf")
    with pytest.raises(ConceptLabError, match="mine.yaml is not valid YAML"):
        load_concept(path)


def test_a_file_of_ones_own(tmp_path):
    path = broken(tmp_path, lambda raw: raw.update(name="mine"))
    assert load_concept(path).name == load_concept(str(path)).name == "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.pop("words"), "mine.yaml has no key 'words'"),
        (lambda raw: raw.update(neighbour="tennis"), "mine.yaml does not fit the schema of data/README.md"),
        (lambda raw: raw["questions"]["dev"][0].update(answer="b"), "mine.yaml does not fit the schema"),
        (lambda raw: raw["neighbour"].pop("texts"), "mine.yaml has no key 'texts'"),
        (lambda raw: raw["questions"]["test"][0].pop("options"), "mine.yaml has no key 'options'"),
        (lambda raw: raw["questions"]["dev"][0].update(answer=9, id="bad-1"), "mine.yaml: question bad-1 needs"),
        (lambda raw: raw["questions"]["dev"][0].update(options=["a", "a"], answer=0), "distinct options"),
        (lambda raw: raw["questions"]["dev"][1].update(id=raw["questions"]["dev"][0]["id"]), "occurs twice"),
    ],
)
def test_a_broken_file_says_what_is_wrong(tmp_path, change, message):
    path = broken(tmp_path, change)
    with pytest.raises(ConceptLabError, match=message):
        load_concept(path)
