"""What every attack returns, and how much of an erased concept it brought back.

Every attack is a function `attack(lm, intervention, ..., cfg) -> AttackResult` that leaves the model bit-identical. Its
values are per-question numbers at rising strength, so that `recovered_share` gives the share with its interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError, Interval, recovered_share
from ..data import Question
from ..evaluation import QuestionScores


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
    # training in half precision: shares of the trained numbers that moved, of the float32 masters and of the weights
    moved: tuple[float, float] | None = None

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
) -> Interval:
    """`recovered_share` of three evaluations of the same questions."""
    return recovered_share(*(per_question(x, measure) for x in (original, erased, attacked)))


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
