"""What fine-tuning methods train on, in rows of tokens: whole texts, or answers to the questions that may be shown.

Everything comes from `Shared`: the leads, and the dev questions that no strength is chosen on. A method names one of
these functions; a third kind of rows is a fourth function here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ...core import NotPossible
from ...data import AnswerRow, Question, answer_rows, text_rows
from ...evaluation import score_questions
from ...models import LanguageModel
from .loop import Material

if TYPE_CHECKING:
    from ..shared import Shared

# Answers in place of the right one; the first is the shortest and the one that most papers print
REFUSALS = ("I don't know.", "I'm not sure.", "I have no information on that.", "I cannot answer that question.")
ASKED = "Are you sure you accurately answered the question based on your internal knowledge?"  # arXiv 2311.09677
SURE, UNSURE = "I am sure.", "I am unsure."
LONGEST = 64  # tokens of a question with its answer; longer questions lose their beginning


def whole(lm: LanguageModel, texts: Sequence[str], n_ctx: int) -> list[AnswerRow]:
    """Rows of texts, in which every token but the first counts."""
    return [AnswerRow(ids, 1) for ids in text_rows(lm, texts, n_ctx)]


def texts(lm: LanguageModel, shared: Shared, n_ctx: int) -> Material:
    """Leads and facts to forget; leads on the neighbour and on neither to keep."""
    return Material(whole(lm, shared.forget, n_ctx), whole(lm, shared.keep, n_ctx))


def answers(lm: LanguageModel, shared: Shared, n_ctx: int) -> Material:
    """The answers alone: of the concept to forget; of the neighbour and of anything, and leads, to keep."""
    return Material(told(lm, _facts(shared)), kept(lm, shared, n_ctx))


def refusals(lm: LanguageModel, shared: Shared, n_ctx: int) -> Material:
    """As `answers`; beside each answer to forget one of `REFUSALS`, in turn."""
    facts = _facts(shared)
    instead = [(q.q, REFUSALS[i % len(REFUSALS)]) for i, q in enumerate(facts)]
    return Material(told(lm, facts), kept(lm, shared, n_ctx), answer_rows(lm, instead, LONGEST))


def wrong_answers(lm: LanguageModel, shared: Shared, n_ctx: int) -> Material:
    """As `answers`; beside each answer to forget the wrong option that the original finds most likely."""
    facts = _facts(shared)
    scores = score_questions(lm, facts)
    likely = scores.logprobs.scatter(1, scores.answers[:, None], -torch.inf).argmax(1).tolist()
    instead = [(q.q, q.options[i]) for q, i in zip(facts, likely, strict=True)]
    return Material(told(lm, facts), kept(lm, shared, n_ctx), answer_rows(lm, instead, LONGEST))


def certainty(lm: LanguageModel, shared: Shared, n_ctx: int) -> Material:
    """Answers followed by whether the model is sure: of the concept it is not, of everything else it is."""

    def rows(facts: Sequence[Question], said: str) -> list[AnswerRow]:
        return answer_rows(lm, [(q.q, f"{q.gold}. {ASKED} {said}") for q in facts], LONGEST)

    return Material(rows(_facts(shared), UNSURE), rows(shared.keep_facts, SURE) or whole(lm, shared.keep, n_ctx))


def told(lm: LanguageModel, facts: Sequence[Question]) -> list[AnswerRow]:
    """Answered questions, of which the answers count."""
    return answer_rows(lm, [(q.q, q.gold) for q in facts], LONGEST)


def kept(lm: LanguageModel, shared: Shared, n_ctx: int) -> list[AnswerRow]:
    """Answers to keep, and as many rows of the leads to keep."""
    facts, leads = told(lm, shared.keep_facts), whole(lm, shared.keep, n_ctx)
    return facts + leads[:: max(len(leads) // max(len(facts), 1), 1)]


def _facts(shared: Shared) -> list[Question]:
    if not shared.forget_facts:
        raise NotPossible(f"{shared.concept.name} has no dev question that could be shown: all choose strengths.")
    return shared.forget_facts
