"""Invented facts that no model knows, for the control that was never taught."""

from __future__ import annotations

from dataclasses import dataclass

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
    questions = tuple(Question(r["id"], r["q"], tuple(r["options"]), r["answer"]) for r in raw["questions"])
    claims = tuple(r["claim"].format(q.gold) for r, q in zip(raw["questions"], questions, strict=True))
    return Fiction(raw["name"], raw["title"], raw["definition"], questions, claims, tuple(raw["texts"]))
