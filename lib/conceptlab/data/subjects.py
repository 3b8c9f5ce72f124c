"""What an attacker by prompt is given about a subject; the translations of the questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..core import ConceptLabError, data_dir
from .concept_checks import check_fiction, check_translations
from .concepts import Concept
from .leaks import other_facts
from .questions import Question
from .schema import Part, RawFiction, RawPrompts, RawTranslations, read_yaml

_FILES: dict[str, tuple[type[Part], Callable | None]] = {
    "prompts": (RawPrompts, None),
    "translations": (RawTranslations, check_translations),
    "fictional": (RawFiction, check_fiction),
}


@dataclass(frozen=True)
class Subject:
    """What an attacker by prompt knows about what was erased."""

    title: str
    definition: str = ""
    texts: tuple[str, ...] = ()  # without the tested answers
    facts: tuple[Question, ...] = ()  # other facts, with their answers


@lru_cache(3)
def attack_data(name: str) -> dict:
    """The content of data/attacks/<name>.yaml: "prompts", "translations" or "fictional"."""
    if name not in _FILES:
        raise ConceptLabError(f"There is no data/attacks/{name}.yaml; known are {', '.join(_FILES)}.")
    schema, check = _FILES[name]
    return read_yaml(data_dir() / "attacks" / f"{name}.yaml", schema, check).model_dump(exclude_unset=True)


def subject_of(concept: Concept, questions: Sequence[Question]) -> Subject:
    """What data/ holds about a concept, with everything cut that holds an answer of `questions`."""
    definition = attack_data("prompts")["definitions"].get(concept.name, "")
    texts = tuple(concept.texts(without_answers=questions))
    return Subject(concept.title, definition, texts, other_facts(concept.dev, questions))


def translatable(questions: Sequence[Question]) -> tuple[Question, ...]:
    """Those questions that data/attacks/translations.yaml holds in every language."""
    return tuple(q for q in questions if q.id in attack_data("translations")["questions"])


def translated(questions: Sequence[Question], language: str) -> tuple[Question, ...]:
    """The same questions in another language, ids and places of the answers unchanged."""
    known = attack_data("translations")
    if language not in known["languages"]:
        raise ConceptLabError(f"Unknown language {language!r}; there are {', '.join(known['languages'])}.")
    missing = [q.id for q in questions if q.id not in known["questions"]]
    if missing:
        raise ConceptLabError(f"Question {missing[0]} has no translation; ask translatable(questions) only.")
    rows = [(q, known["questions"][q.id][language]) for q in questions]
    return tuple(Question(q.id, r["q"], tuple(r.get("options", q.options)), q.answer) for q, r in rows)
