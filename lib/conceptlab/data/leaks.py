"""Do texts hold the answers that are asked for? Finding them, cutting them, choosing other facts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..core import ConceptLabError
from .questions import Question


def leaked(texts: Sequence[str], questions: Sequence[Question]) -> list[str]:
    """Right answers of `questions` that stand as whole words in `texts`, lower case, sorted."""
    pattern = answer_pattern(questions)
    return sorted({found.lower() for text in texts for found in pattern.findall(text)})


def check_no_answers(texts: Sequence[str], questions: Sequence[Question], what: str) -> None:
    """Raise when what the attacker brings along already holds an answer that it is tested on."""
    found = leaked(texts, questions)
    if found:
        raise ConceptLabError(
            f"{what} must not hold the answers that are tested, but holds {found[0]!r}"
            f"{f' and {len(found) - 1} more' if len(found) > 1 else ''}; cut them, or test other questions."
        )


def other_facts(facts: Sequence[Question], questions: Sequence[Question]) -> tuple[Question, ...]:
    """Those of `facts` whose question and answer hold no right answer of `questions`: what an attacker may be given."""
    return tuple(f for f in facts if not leaked([f"{f.q} {f.gold}"], questions))


def cut_answers(texts: Iterable[str], questions: Iterable[Question]) -> list[str]:
    """The texts without the sentences that hold the right answer to a question, as whole words; empty ones left out."""
    pattern, cut = answer_pattern(questions), []
    for text in texts:
        kept = [s for s in re.split(r"(?<=[.!?])\s+", text) if not pattern.search(s)]
        if kept:
            cut.append(" ".join(kept))
    return cut


def answer_pattern(questions: Iterable[Question]) -> re.Pattern[str]:
    """Finds the right answers of `questions` as whole words, case ignored; of no question: matches nothing."""
    golds = sorted({q.gold.lower() for q in questions})
    return re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, golds)) + r")(?!\w)" if golds else r"(?!)", re.I)
