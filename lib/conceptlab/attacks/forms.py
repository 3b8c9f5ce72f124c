"""Other forms of the same fact: a statement to complete, letters to choose, true or false, a clue.

An edit that was judged by plain questions may have changed how they are answered rather than what is known. The forms
are those of `conceptlab.evaluation.forms`; the attacker needs nothing but the questions in these forms.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..core import NotPossible
from ..data import Question
from ..edits import Intervention, applied
from ..evaluation import QuestionScores, has_form, score_form
from ..models import LanguageModel
from .base import AttackResult, Cost, Exchange


@dataclass(frozen=True)
class FormConfig:
    """Which forms; the plain question is the one that everything else is judged by."""

    forms: tuple[str, ...] = ("cloze", "choice", "true_false", "clue")


def with_forms(questions: Sequence[Question], forms: Sequence[str]) -> tuple[Question, ...]:
    """Those questions that can be asked in all of `forms`."""
    return tuple(q for q in questions if all(has_form(q, form) for form in forms))


def ask_forms(
    lm: LanguageModel,
    intervention: Intervention | None,
    questions: Sequence[Question],
    cfg: FormConfig = FormConfig(),
) -> AttackResult:
    """Per form (label): `QuestionScores` of those questions that have all forms; the transcript names them.

    The unit of a margin differs between forms (a letter, a truth value, words), so compare `correct`, or a form with
    itself under the original model. Raises ConceptLabError where no question has all forms.
    """
    asked = with_forms(questions, cfg.forms)
    if not asked or not cfg.forms:
        raise NotPossible(f"No question can be asked as {', '.join(cfg.forms)}; give claims and clues, or a form.")
    start, values = time.perf_counter(), []
    with torch.no_grad(), applied(intervention, lm):
        for form in cfg.forms:
            values.append(score_form(lm, asked, form))
    tokens = sum(map(len, lm.encode_all(f"{q.claim} {q.clue} {' '.join(q.options)}" for q in asked)))
    cost = Cost(0, tokens, time.perf_counter() - start)
    last: QuestionScores = values[-1]
    best = last.logprobs.argmax(1).tolist()
    transcript = tuple(Exchange(q.id, q.clue or q.q, q.options[b]) for q, b in zip(asked, best, strict=True))
    return AttackResult(
        tuple(range(1, len(values) + 1)), tuple(values), (), cost, labels=cfg.forms, transcript=transcript
    )
