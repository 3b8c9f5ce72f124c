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
from ..models import LanguageModel, Prefix, branch_logprobs, rows_that_fit

ROW = 256  # tokens that a question takes at most: the few-shot prefix's keys and values, its stem, its options
MOST = 128  # questions in one pass; more are hardly faster, and the rounding of half precision depends on the number


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

    @property
    def chance(self) -> float:
        """The accuracy of guessing."""
        return 1 / self.logprobs.shape[1]

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


def guess_corrected(accuracy: float, n_options: int) -> float:
    """Share of questions that are known, if the others are guessed: `(accuracy - 1/n_options) / (1 - 1/n_options)`.

    Below 0 where fewer are right than guessing gives. Raises for fewer than two options.
    """
    if n_options < 2:
        raise ConceptLabError(f"Guessing needs at least two options to choose from; got {n_options}.")
    return (accuracy - 1 / n_options) / (1 - 1 / n_options)


def check_questions(questions: Sequence[Question], where: str = "the list") -> None:
    """Raises ConceptLabError, before the model reads a token, for questions that cannot be scored together."""
    if not questions:
        raise ConceptLabError(f"There is no question to ask: {where} is empty; give at least one.")
    for q in questions:
        if not isinstance(q, Question):
            raise ConceptLabError(f"A question was expected in {where}, got {q!r:.40} ({type(q).__name__}).")
        told = [option.strip() for option in q.options]
        if not q.q.strip() or not all(told):
            raise ConceptLabError(f"Question {q.id} or one of its options is empty; write it out, or leave it out.")
        if len(set(told)) < max(len(told), 2) or not 0 <= q.answer < len(told):
            raise ConceptLabError(
                f"Question {q.id} needs two or more options that differ by more than spaces at their edges, and an "
                "answer that is one of them."
            )
    if len(counts := {len(q.options) for q in questions}) > 1:
        raise ConceptLabError(
            "Questions scored together have the same number of options, since chance depends on it; "
            f"{where} has some with {' and some with '.join(map(str, sorted(counts)))}: ask them apart."
        )


def ask(lm: LanguageModel, questions: Sequence[Question], n: int | None = None, batch_size: int | None = None) -> Asked:
    """Ask the model as it is now the first `n` questions (None: all), as `score_questions` does."""
    if n is not None and n < 1:
        raise ConceptLabError(f"At least one question is asked (None: all); got n={n}.")
    chosen = tuple(questions[:n])
    return Asked(chosen, score_questions(lm, chosen, batch_size=batch_size))


def score_questions(
    lm: LanguageModel, questions: Sequence[Question], few_shot: str | Prefix = FEW_SHOT, batch_size: int | None = None
) -> QuestionScores:
    """Score every option of every question. All questions must have the same number of options.

    `batch_size`: questions per forward pass; None: 16 on a CPU, on a GPU what its free memory holds, up to 128.

    `few_shot`: answered questions, or the same run beforehand (`shared_prefix`) where several lists share them.
    """
    check_questions(questions)
    return score_stems(lm, questions, few_shot, [question_stem(q, few_shot) for q in questions], batch_size)


def score_stems(
    lm: LanguageModel,
    questions: Sequence[Question],
    prefix: str | Prefix,
    stems: Sequence[str],
    batch_size: int | None = None,
) -> QuestionScores:
    """Score every option of each question after `prefix` (shared, run once) and a stem of its own."""
    trees = [(stem, [f" {o}" for o in q.options]) for stem, q in zip(stems, questions, strict=True)]
    rows = rows_that_fit(lm, ROW, 16, MOST) if batch_size is None else batch_size
    found = branch_logprobs(lm, prefix, trees, rows)
    table = torch.tensor([[float(branch.mean()) for branch in branches] for branches in found])
    return QuestionScores(finite_scores(table), torch.tensor([q.answer for q in questions]))


def finite_scores(table: Float[Tensor, "n options"]) -> Float[Tensor, "n options"]:
    """The scores, unless the model lost itself: nan compares as wrong, which would look like an erased fact."""
    if not bool(table.isfinite().all()):
        raise ConceptLabError(
            f"{int((~table.isfinite()).any(1).sum())} of {len(table)} questions got scores that are not finite: the "
            "model overflows; load it in float32, or make the intervention weaker."
        )
    return table


def gold_logprobs(
    lm: LanguageModel, questions: Sequence[Question], few_shot: str = FEW_SHOT, batch_size: int = 32
) -> Float[Tensor, " n"]:
    """`score_questions(...).gold` without the work on the wrong options."""
    if not questions:
        raise ConceptLabError("There is no question to ask: the list is empty; give at least one.")
    trees = [(question_stem(q, few_shot), [f" {q.gold}"]) for q in questions]
    found = branch_logprobs(lm, few_shot, trees, batch_size)
    return finite_scores(torch.tensor([[float(branches[0].mean())] for branches in found]))[:, 0]
