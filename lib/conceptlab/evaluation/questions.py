"""Multiple-choice questions scored by log-probability, the measure that small models allow.

Greedy zero-shot answers of a model of this size measure format; so every option's text is scored as an answer after
a fixed few-shot prompt, and the question counts as right when the right option has the highest mean log-probability
per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core import ConceptLabError
from ..data import FEW_SHOT, Question, question_stem
from ..models import LanguageModel, Prefix, branch_logprobs


@dataclass(frozen=True)
class QuestionScores:
    """Scores of a list of questions, in its order."""

    logprobs: Float[Tensor, "n options"]  # mean log-probability per token of each option
    answers: Tensor  # index of the right option, [n]

    @property
    def gold(self) -> Float[Tensor, " n"]:
        """Mean log-probability per token of the right option (nats)."""
        return self.logprobs.gather(1, self.answers[:, None])[:, 0]

    @property
    def margin(self) -> Float[Tensor, " n"]:
        """Right option minus best wrong option (nats); positive where the question is answered rightly."""
        wrong = self.logprobs.scatter(1, self.answers[:, None], -torch.inf)
        return self.gold - wrong.amax(1)

    @property
    def correct(self) -> Bool[Tensor, " n"]:
        return self.margin > 0

    @property
    def accuracy(self) -> float:
        return float(self.correct.float().mean())

    def only(self, keep: Bool[Tensor, " n"] | Int[Tensor, " m"]) -> QuestionScores:
        """The scores of some of the questions, by mask or by index."""
        return QuestionScores(self.logprobs[keep], self.answers[keep])


@dataclass(frozen=True)
class Asked:
    """Questions and what the model scored on them before anything was changed."""

    questions: tuple[Question, ...]
    scores: QuestionScores

    def known(self, n: int) -> Asked:
        """The first `n` questions that were answered rightly; where none was, the first `n` of all."""
        right = self.scores.correct if bool(self.scores.correct.any()) else torch.ones_like(self.scores.correct)
        index = right.nonzero()[:n, 0]
        return Asked(tuple(self.questions[i] for i in index.tolist()), self.scores.only(index))


def ask(lm: LanguageModel, questions: Sequence[Question], n: int | None = None, batch_size: int = 32) -> Asked:
    """Ask the model as it is now the first `n` questions (None: all)."""
    chosen = tuple(questions[:n])
    return Asked(chosen, score_questions(lm, chosen, batch_size=batch_size))


def score_questions(
    lm: LanguageModel, questions: Sequence[Question], few_shot: str | Prefix = FEW_SHOT, batch_size: int = 16
) -> QuestionScores:
    """Score every option of every question. All questions must have the same number of options.

    `few_shot`: answered questions, or the same run beforehand (`shared_prefix`) where several lists share them.
    """
    if len({len(q.options) for q in questions}) != 1:
        raise ConceptLabError("score_questions needs at least one question, all with the same number of options.")
    return score_stems(lm, questions, few_shot, [question_stem(q, few_shot) for q in questions], batch_size)


def score_stems(
    lm: LanguageModel, questions: Sequence[Question], prefix: str | Prefix, stems: Sequence[str], batch_size: int = 16
) -> QuestionScores:
    """Score every option of each question after `prefix` (shared, run once) and a stem of its own."""
    trees = [(stem, [f" {o}" for o in q.options]) for stem, q in zip(stems, questions, strict=True)]
    found = branch_logprobs(lm, prefix, trees, batch_size)
    table = torch.tensor([[float(branch.mean()) for branch in branches] for branches in found])
    return QuestionScores(table, torch.tensor([q.answer for q in questions]))


def gold_logprobs(
    lm: LanguageModel, questions: Sequence[Question], few_shot: str = FEW_SHOT, batch_size: int = 32
) -> Float[Tensor, " n"]:
    """`score_questions(...).gold` without the work on the wrong options."""
    trees = [(question_stem(q, few_shot), [f" {q.gold}"]) for q in questions]
    found = branch_logprobs(lm, few_shot, trees, batch_size)
    return torch.tensor([float(branches[0].mean()) for branches in found])
