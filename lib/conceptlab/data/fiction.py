"""Invented facts that no model knows, for the control that was never taught."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .concepts import Concept, TextQuery, load_concept
from .corpora import Article
from .questions import Question, fact_texts
from .subjects import Subject, attack_data


@dataclass(frozen=True)
class Fiction:
    """Invented facts: questions, the same facts as statements, and texts about their subject without any answer."""

    name: str
    title: str
    definition: str
    questions: tuple[Question, ...]
    claims: tuple[str, ...]  # one per question, the answer filled in
    texts: tuple[str, ...]

    def lessons(self, questions: tuple[Question, ...] | None = None) -> list[str]:
        """What a copy is taught: each fact as a statement and as an answered question."""
        chosen = self.questions if questions is None else questions
        wanted = {q.id for q in chosen}
        return [c for q, c in zip(self.questions, self.claims, strict=True) if q.id in wanted] + fact_texts(chosen)

    def subject(self, facts: tuple[Question, ...] = ()) -> Subject:
        """What an attacker by prompt knows."""
        return Subject(self.title, self.definition, self.texts, facts)


def load_fiction() -> Fiction:
    """The invented country of data/attacks/fictional.yaml."""
    raw = attack_data("fictional")
    questions = tuple(Question(r["id"], r["q"], tuple(r["options"]), r["answer"], r["claim"]) for r in raw["questions"])
    claims = tuple(r["claim"].format(q.gold) for r, q in zip(raw["questions"], questions, strict=True))
    return Fiction(raw["name"], raw["title"], raw["definition"], questions, claims, tuple(raw["texts"]))


def fiction_concept(fiction: Fiction, neighbour: str = "ireland") -> Concept:
    """Invented facts as a concept, for methods of erasure: fitted and judged where the facts are taught (`teach`).

    The first half of the facts is dev, the second test; its leads are the fiction's texts, its only word the title.
    What is to be spared stands in for a neighbour: a real country, whose questions and leads `neighbour` gives.
    """
    half = len(fiction.questions) // 2
    near = replace(load_concept(neighbour), neighbour=None, near=())
    written = tuple(Article(f"{fiction.title} {i}", text, "", "") for i, text in enumerate(fiction.texts))
    return Concept(
        fiction.name, fiction.title, (fiction.title,), (), TextQuery(frozenset()), fiction.questions[:half],
        fiction.questions[half:], near, written,
    )  # fmt: skip
