"""Multiple-choice questions and the few-shot form in which they are asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..models import Prefix


def fact_texts(facts: Sequence[Question]) -> list[str]:
    """Answered questions as training texts, in the form in which the questions are scored."""
    return [few_shot_prompt([(f.q, f.gold)]) for f in facts]


def few_shot_prompt(pairs: Iterable[tuple[str, str]]) -> str:
    """A prompt of answered questions; `question_stem` continues it."""
    return "\n\n".join(f"Question: {question}\nAnswer: {answer}" for question, answer in pairs)


# On subjects that no concept and no general question uses (a test compares them).
FEW_SHOT = few_shot_prompt(
    [
        ("What do cows eat?", "grass"),
        ("What is the opposite of wet?", "dry"),
        ("What is the capital of Poland?", "Warsaw"),
        ("Who wrote the novel Oliver Twist?", "Charles Dickens"),
    ]
)


def question_stem(question: Question, few_shot: str | Prefix = FEW_SHOT) -> str:
    """What follows `few_shot` and precedes the answer's leading space.

    The blank line belongs to the stem: "\\n\\n" alone is one token, before a word it is two.
    """
    return ("\n\n" if few_shot else "") + f"Question: {question.q}\nAnswer:"


@dataclass(frozen=True)
class Question:
    """A multiple-choice question; `answer` indexes `options`. The same fact may be there in two further forms."""

    id: str
    q: str
    options: tuple[str, ...]
    answer: int
    claim: str = ""  # a statement with `{}` in place of the answer; empty: there is none
    clue: str = ""  # an indirect question with the same answer; empty: there is none

    def __post_init__(self):
        # A space at the edge of an option would make other tokens of it, and a score that means nothing.
        object.__setattr__(self, "options", tuple(option.strip() for option in self.options))

    @property
    def gold(self) -> str:
        return self.options[self.answer]
