"""Concepts: names, words, texts and questions of what is to be found, erased and attacked (`data/concepts/`)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from ..core import ConceptLabError, data_dir
from .corpora import Article, vital_articles
from .leaks import cut_answers
from .questions import Question


@dataclass(frozen=True)
class TextQuery:
    """Which encyclopedia leads are about a concept: by exact title, or by enough of the keywords."""

    titles: frozenset[str]
    any: tuple[str, ...] = ()  # lower-case keywords
    min_hits: int = 2  # keywords a lead must hold (matched as whole words)
    topics: frozenset[str] = frozenset()  # restrict keyword matches to these topic labels; empty: all

    def matches(self, article: Article) -> bool:
        if article.title in self.titles:
            return True
        if self.topics and article.topic not in self.topics:
            return False
        words = set(re.findall(r"[a-z]+", article.text.lower()))
        hits = sum(k in words if k.isalpha() else k in article.text.lower() for k in self.any)
        return bool(self.any) and hits >= self.min_hits


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

    Raises ConceptLabError with the list of known concepts, or with what is wrong in the file.
    """
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else data_dir() / "concepts" / f"{name}.yaml"
    if not path.exists():
        raise ConceptLabError(f"No concept {str(name)!r}; known are {', '.join(list_concepts())}, or give a YAML file.")
    raw = _read_yaml(path)
    try:
        near = raw["neighbour"]
        questions = raw["neighbour_questions"]
        neighbour = _concept(near | {"questions": questions}, path)
        return _concept(raw, path, neighbour)
    except KeyError as error:
        raise ConceptLabError(f"{path.name} has no key {error}; see data/README.md for the schema.") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ConceptLabError(f"{path.name} does not fit the schema of data/README.md: {error}") from None


def general_questions(split: str) -> tuple[Question, ...]:
    """Easy general questions (`split` "dev" or "test") that need none of the concepts."""
    path = data_dir() / "concepts" / "general.yaml"
    return _questions(_read_yaml(path)["questions"][split], path)


def _read_yaml(path: Path) -> dict:
    try:
        return yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # libyaml: ten times as fast
    except yaml.YAMLError as error:
        raise ConceptLabError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}") from None


def _concept(raw: dict, path: Path, neighbour: Concept | None = None) -> Concept:
    text = raw["texts"]
    query = TextQuery(
        frozenset(text.get("titles") or ()), tuple(text.get("any") or ()), int(text.get("min_hits", 2)),
        frozenset(text.get("topics") or ()),
    )  # fmt: skip
    written = tuple(Article(a["title"], a["text"].strip(), "", "") for a in text.get("written") or ())
    return Concept(
        raw["name"], raw["title"], tuple(map(str, raw["words"])), tuple(map(str, raw.get("lookalikes") or ())), query,
        _questions(raw["questions"]["dev"], path), _questions(raw["questions"]["test"], path), neighbour, written,
    )  # fmt: skip


def _questions(rows: list[dict], path: Path) -> tuple[Question, ...]:
    questions = tuple(
        Question(
            str(r["id"]), r["q"], tuple(map(str, r["options"])), int(r["answer"]), str(r.get("claim") or ""),
            str(r.get("clue") or ""),
        )
        for r in rows
    )  # fmt: skip
    for q in questions:
        if not 0 <= q.answer < len(q.options) or len(set(q.options)) != len(q.options):
            raise ConceptLabError(
                f"{path.name}: question {q.id} needs distinct options and an answer that is one of them."
            )
        if q.claim and q.claim.count("{}") != 1:
            raise ConceptLabError(f"{path.name}: the claim of question {q.id} needs exactly one {{}} for the answer.")
    repeated = [i for i, n in Counter(q.id for q in questions).items() if n > 1]
    if repeated:
        raise ConceptLabError(f"{path.name}: the question id {repeated[0]} occurs twice; give each its own.")
    return questions
