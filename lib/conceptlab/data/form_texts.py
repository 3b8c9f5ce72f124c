"""Facts as texts in one form each, for training in one form and asking in another (the form matrix).

The forms are those that `conceptlab.evaluation.forms` asks in, with the same words around the fact.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..core import ConceptLabError
from .questions import Question, few_shot_prompt

FORMS = ("question", "cloze", "choice", "true_false", "clue")
LETTERS = "ABCDEFGH"


def choice_stem(question: str, options: Sequence[str], lead: str = "\n\n") -> str:
    """The question with its options behind letters, up to the answer's leading space."""
    lines = [f"{LETTERS[i]}. {option}" for i, option in enumerate(options)]
    return f"{lead}Question: {question}\n" + "\n".join(lines) + "\nAnswer:"


def has_form(question: Question, form: str) -> bool:
    """Whether a question can be asked in a form: cloze and true_false need its `claim`, clue its `clue`."""
    if form not in FORMS:
        raise ConceptLabError(f"Unknown form {form!r}; the forms are {', '.join(FORMS)}.")
    return bool({"cloze": question.claim, "true_false": question.claim, "clue": question.clue}.get(form, True))


def form_texts(facts: Sequence[Question], form: str) -> list[str]:
    """Each fact that has the form as one text that ends with its answer (a letter, "true", or the right option).

    Raises ConceptLabError for an unknown form, and where no fact has it.
    """
    chosen = [f for f in facts if has_form(f, form)]
    if not chosen:
        raise ConceptLabError(f"None of {len(facts)} facts can be put as {form}; add claims or clues to the file.")
    return [_TEXTS[form](f) for f in chosen]


_TEXTS = {
    "question": lambda f: few_shot_prompt([(f.q, f.gold)]),
    "clue": lambda f: few_shot_prompt([(f.clue, f.gold)]),
    "cloze": lambda f: f"Fact: {f.claim.replace('{}', f.gold)}",
    "choice": lambda f: f"{choice_stem(f.q, f.options, lead='')} {LETTERS[f.answer]}",
    "true_false": lambda f: f"Statement: {f.claim.replace('{}', f.gold)}\nTrue or false? Answer: true",
}
