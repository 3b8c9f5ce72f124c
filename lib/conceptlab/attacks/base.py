"""What every attack returns, and how much of an erased concept it brought back.

Every attack is a function `attack(lm, intervention, ..., cfg) -> AttackResult` that leaves the model bit-identical. Its
values are per-question numbers at rising strength, so that `recovered_share` gives the share with its interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..cache import ConceptLabError
from ..concepts import answer_pattern
from ..evaluation import Interval, QuestionScores
from ..models import LanguageModel
from ..text import Question


@runtime_checkable
class Intervention(Protocol):
    """A change of a model: inside `applied` it holds, outside the model is bit-identical to what it was."""

    def applied(self, lm: LanguageModel) -> AbstractContextManager: ...


def applied(intervention: Intervention | None, lm: LanguageModel) -> AbstractContextManager:
    """`intervention.applied(lm)`; None stands for the unchanged model."""
    return nullcontext(lm) if intervention is None else intervention.applied(lm)


@dataclass(frozen=True)
class Cost:
    """What an attack used up."""

    steps: int  # optimisation steps; 0: nothing was optimised
    tokens: int  # tokens that the attacker ran through the model, padding and evaluations not counted
    seconds: float  # of the attack itself, evaluations not counted


@dataclass(frozen=True)
class Exchange:
    """One prompt of the attacker and what the model made of it."""

    id: str  # of the question
    prompt: str  # everything the model read before its answer
    answer: str  # the option it likes best, or the text it wrote


@dataclass(frozen=True)
class Hits:
    """Per question, whether an attack that ranks no options found the right answer (1 or 0)."""

    values: Float[Tensor, " n"]


@dataclass(frozen=True)
class AttackResult:
    """One attack on one model: the attacker's progress, and what the evaluation gave at each strength."""

    steps: tuple[int, ...]  # strength at each checkpoint: steps, bits, layers, prompts, candidates, ...
    values: tuple  # the evaluation there: QuestionScores, Hits, or whatever `evaluate` returned
    losses: tuple[float, ...]  # the attacker's own loss; its unit stands with the attack
    cost: Cost
    controls: tuple = ()  # the same evaluation under the attack's own control, at each strength
    labels: tuple[str, ...] = ()  # names of the strengths, where numbers say little
    transcript: tuple[Exchange, ...] = ()  # prompts and answers, where the attack asks something

    @property
    def last(self):
        """The evaluation at the greatest strength."""
        return self.values[-1]


def per_question(value: object, measure: str = "margin") -> Float[Tensor, " n"]:
    """One number per question: the hits of `Hits`, or else the field `measure` (margin, gold, correct, internal)."""
    return value.values if isinstance(value, Hits) else getattr(value, measure).float()


def share(
    original: QuestionScores | Hits,
    erased: QuestionScores | Hits,
    attacked: QuestionScores | Hits,
    measure: str = "margin",
    n_resamples: int = 2_000,
) -> Interval:
    """`recovered_share` of three evaluations of the same questions."""
    return recovered_share(*(per_question(x, measure) for x in (original, erased, attacked)), n_resamples)


def exchanges(questions: Sequence[Question], prompts: Sequence[str], scores: QuestionScores) -> tuple[Exchange, ...]:
    """A transcript: the option with the highest score is the model's answer."""
    best = scores.logprobs.argmax(1).tolist()
    return tuple(Exchange(q.id, p, q.options[b]) for q, p, b in zip(questions, prompts, best, strict=True))


def checkpoints(at: Sequence[int] | None, steps: int) -> tuple[int, ...]:
    """Steps after which an optimised attack is judged, in order; None: before the first and after the last."""
    found = tuple(sorted({0, steps} if at is None else set(at)))
    if steps < 1 or not found or not 0 <= found[0] <= found[-1] <= steps:
        raise ConceptLabError("An optimised attack needs at least one step, and checkpoints within its steps.")
    return found


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


def recovered_share(
    original: Tensor | Sequence[float],
    erased: Tensor | Sequence[float],
    attacked: Tensor | Sequence[float],
    n_resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """(attacked - erased) / (original - erased), means over questions, with its 95 % bootstrap interval.

    The three lists hold one number per question (0/1, or a log-probability), the same questions in the same order;
    whole questions are resampled. 0: the attack brought nothing back; 1: all; above 1 and below 0 are possible.
    A resample in which nothing was erased (gap <= 0) says nothing about the share and counts as unbounded, half of
    them on either side. Raises when lengths differ, or when nothing was erased on the questions as a whole.
    """
    columns = [torch.as_tensor(x, dtype=torch.float64).flatten() for x in (original, erased, attacked)]
    if len({len(c) for c in columns}) != 1 or not len(columns[0]):
        raise ConceptLabError(
            "A recovered share needs the same questions for all three models; got "
            f"{', '.join(str(len(c)) for c in columns)} values."
        )
    before, after, now = torch.stack(columns)
    if n_resamples < 1 or not bool(torch.stack(columns).isfinite().all()):
        raise ConceptLabError("A recovered share needs finite numbers and at least one resample.")
    gap = float((before - after).mean())
    if gap <= 0:
        raise ConceptLabError(
            f"Nothing was erased on these questions (original - erased = {gap:.3f}), so no share of it can be "
            "recovered; use questions on which the edit lowers the score."
        )
    n = len(before)
    picks = torch.randint(n, (n_resamples, n), generator=torch.Generator().manual_seed(seed))
    gaps, gains = (before - after)[picks].mean(1), (now - after)[picks].mean(1)
    shares = gains / gaps
    undefined = gaps <= 0
    shares[undefined] = torch.where(torch.arange(int(undefined.sum())) % 2 == 0, torch.inf, -torch.inf).double()
    ordered = shares.sort().values
    low, high = ordered[int(0.025 * n_resamples)], ordered[-1 - int(0.025 * n_resamples)]
    return Interval(float((now - after).mean()) / gap, float(low), float(high), n)
