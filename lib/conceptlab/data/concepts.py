"""Concepts: names, words, texts and questions of what is to be found, erased and attacked (`data/concepts/`)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..core import ConceptLabError, data_dir
from .concept_checks import check_concept, check_general
from .corpora import Article, vital_articles
from .leaks import cut_answers
from .questions import Question
from .schema import RawConcept, RawGeneral, RawQuestion, RawQuestions, RawSubject, read_yaml


@dataclass(frozen=True)
class TextQuery:
    """Which encyclopedia leads are about a concept: by exact title, or by enough of the keywords."""

    titles: frozenset[str]
    any: tuple[str, ...] = ()  # keywords in any script, case ignored
    min_hits: int = 2  # keywords a lead must hold: whole words; those with a space or a hyphen anywhere in the text
    topics: frozenset[str] = frozenset()  # restrict keyword matches to these topic labels; empty: all

    def matches(self, article: Article) -> bool:
        if article.title in self.titles:
            return True
        if not self.any or (self.topics and article.topic not in self.topics):
            return False
        text, keywords = _plain(article.text), _keywords(self.any)
        there = [k for k in keywords if k in text]
        if len(there) < self.min_hits:  # most texts; the words of the others are told apart
            return False
        words = set(re.findall(r"[^\W\d_]+", text))  # runs of letters of any script
        return sum(k in words or not k.isalpha() for k in there) >= self.min_hits


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text.lower())  # an accent may be written as a character of its own


@lru_cache(64)
def _keywords(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_plain, words))


@dataclass(frozen=True)
class NearDomain:
    """A domain near a concept that no choice ever sees: neither reach, nor filters, nor the search for a strength."""

    name: str
    title: str
    words: tuple[str, ...]
    test: tuple[Question, ...]


@dataclass(frozen=True)
class Concept:
    """One concept or neighbour: what it is called, how to recognise it, what to ask about it."""

    name: str
    title: str
    words: tuple[str, ...]  # strongly tied to the concept, mostly single tokens
    lookalikes: tuple[str, ...]  # near in look or feel, must survive an erasure
    query: TextQuery
    dev: tuple[Question, ...]  # for choosing features and strengths
    test: tuple[Question, ...]  # for the final table; no strength is chosen on these
    neighbour: Concept | None = None
    written: tuple[Article, ...] = ()  # further leads of our own, where the corpus has few
    near: tuple[NearDomain, ...] = ()  # unseen near domains, for the scorecard alone

    def articles(self) -> list[Article]:
        """Encyclopedia leads about the concept."""
        return [*(a for a in vital_articles() if self.query.matches(a)), *self.written]

    def texts(self, *, without_answers: Iterable[Question] = ()) -> list[str]:
        """Leads about the concept; sentences that hold the right answer to one of `without_answers` are cut.

        Answers are matched as whole words, case ignored. Used to relearn a concept without teaching to the test.
        """
        return cut_answers((article.text for article in self.articles()), without_answers)


def list_concepts() -> list[str]:
    """Names of the concepts in data/concepts (the general questions are not a concept)."""
    return sorted(p.stem for p in (data_dir() / "concepts").glob("*.yaml") if p.stem != "general")


def load_concept(name: str | Path) -> Concept:
    """A concept from `data/concepts/<name>.yaml`, or from a YAML file of your own with the same keys.

    Values are text as written (`No`, `on` and `007` stay so). Raises ConceptLabError with the list of known concepts,
    or with the file, line and key of what is wrong.
    """
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else data_dir() / "concepts" / f"{name}.yaml"
    if not path.exists():
        raise ConceptLabError(f"No concept {str(name)!r}; known are {', '.join(list_concepts())}, or give a YAML file.")
    raw = read_yaml(path, RawConcept, check_concept)
    neighbour = _concept(raw.neighbour, raw.neighbour_questions)
    near = tuple(NearDomain(n.name, n.title, n.words, _questions(n.questions.test)) for n in raw.near)
    return _concept(raw, raw.questions, neighbour, near)


def general_questions(split: str) -> tuple[Question, ...]:
    """Easy general questions (`split` "dev" or "test") that need none of the concepts."""
    if split not in ("dev", "test"):
        raise ConceptLabError(f"There are general questions for 'dev' and for 'test'; asked was {split!r}.")
    raw = read_yaml(data_dir() / "concepts" / "general.yaml", RawGeneral, check_general)
    return _questions(getattr(raw.questions, split))


def _concept(
    raw: RawSubject, questions: RawQuestions, neighbour: Concept | None = None, near: tuple[NearDomain, ...] = ()
) -> Concept:
    text = raw.texts
    query = TextQuery(frozenset(text.titles), text.any, text.min_hits, frozenset(text.topics))
    written = tuple(Article(a.title, a.text, "", "") for a in text.written)
    return Concept(
        raw.name, raw.title, raw.words, raw.lookalikes, query,
        _questions(questions.dev), _questions(questions.test), neighbour, written, near,
    )  # fmt: skip


def _questions(rows: tuple[RawQuestion, ...]) -> tuple[Question, ...]:
    return tuple(Question(r.id, r.q, r.options, r.answer, r.claim or "", r.clue or "") for r in rows)
