"""What every attack returns, and how much of an erased concept it brought back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..cache import ConceptLabError
from ..evaluation.statistics import Interval
from ..models import LanguageModel


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

    steps: int  # optimisation steps
    tokens: int  # tokens trained on, padding not counted
    seconds: float  # of the attack itself, evaluations not counted


@dataclass(frozen=True)
class AttackResult:
    """One attack on one model: the attacker's progress, and what `evaluate` returned at each checkpoint."""

    steps: tuple[int, ...]  # strength at each checkpoint
    values: tuple  # what the evaluation returned there
    losses: tuple[float, ...]  # the attacker's loss before each step, nats per token
    cost: Cost

    @property
    def last(self):
        """The evaluation at the greatest strength."""
        return self.values[-1]


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
