"""What all run-time methods share: the contract, what they cost in time, and how often they act where they should not.

They change no weight, so whoever has the weights leaves them away, and the residue is 100 % by construction. What they
promise instead is to leave every other prompt exactly as it was: where the detector is silent, nothing changes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields, is_dataclass

from torch import Tensor

from ...core import Interval, proportion
from ...data import Question
from ...edits import Intervention
from ...evaluation import score_questions
from ...models import Change, LanguageModel, fingerprint

LEAST = 0.05  # nats per token of the right answer; a question that moves further has been interfered with


class RunTime:
    """An intervention without a change of weights; a subclass is a frozen dataclass that has `guard` and `scaled`."""

    def guard(self, lm: LanguageModel) -> Change:
        raise NotImplementedError

    def scaled(self, factor: float) -> RunTime:
        """The same, weaker or stronger."""
        raise NotImplementedError

    def applied(self, lm: LanguageModel) -> Change:
        """Inside the block the method is on."""
        return self.guard(lm)

    def __repr__(self) -> str:
        """Settings, and a fingerprint of all numbers: two methods that print the same are the same."""
        settings, numbers = _parts(self, "")
        told = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        return f"{type(self).__name__}({told}, {fingerprint(numbers) if numbers else 'no tensors'})"


def _parts(x: object, prefix: str) -> tuple[dict[str, object], dict[str, Tensor]]:
    settings: dict[str, object] = {}
    numbers: dict[str, Tensor] = {}
    for f in fields(x):  # type: ignore[arg-type]
        value, name = getattr(x, f.name), prefix + f.name
        if isinstance(value, Tensor):
            numbers[name] = value.contiguous()
        elif is_dataclass(value):
            inner = _parts(value, f"{name}.")
            settings, numbers = settings | inner[0], numbers | inner[1]
        else:
            settings[name] = value
    return settings, numbers


def false_alarms(
    lm: LanguageModel, intervention: Intervention, questions: Sequence[Question], least: float = LEAST
) -> Interval:
    """Share of questions whose right answer moves by more than `least` nats per token: on what is to be spared, false
    alarms; on the target, how often the method acts at all."""
    before = score_questions(lm, questions).gold
    with intervention.applied(lm):
        moved = (score_questions(lm, questions).gold - before).abs() > least
    return proportion(int(moved.sum()), len(moved))


def latency(lm: LanguageModel, intervention: Intervention, questions: Sequence[Question], runs: int = 3) -> float:
    """Time of scoring `questions` under the intervention over the time without it; the least of `runs` of each, taken
    in turns. Nothing that the method remembered of a prompt in one run is used in the next."""
    plain, guarded = [], []
    for _ in range(runs):
        start = time.perf_counter()
        score_questions(lm, questions)
        plain.append(time.perf_counter() - start)
        with intervention.applied(lm):
            start = time.perf_counter()
            score_questions(lm, questions)
            guarded.append(time.perf_counter() - start)
    return min(guarded) / min(plain)
