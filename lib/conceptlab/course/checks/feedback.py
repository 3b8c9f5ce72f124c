"""Graded feedback: exact, close, right shape but wrong values, wrong shape; and the name of the mistake."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..exercises import EXERCISES, possible_points
from ..record import Points, keep, keep_points

Mistakes = Mapping[str, Tensor | float | int]


def check_equal(
    name: str, answer: object, truth: Tensor | float | int, mistakes: Mistakes | None = None, tol: float = 1e-4
) -> bool:
    """Compare an answer with the truth and print what is the matter. Returns whether it is right.

    `mistakes`: message -> the value a common mistake would give; a match prints that message.
    """
    if answer is None:
        return _say(False, name, "nothing yet: replace the stub with your answer.")
    try:
        got, want = torch.as_tensor(answer).detach().double().cpu(), torch.as_tensor(truth).double().cpu()
    except (TypeError, ValueError, RuntimeError):
        return _say(False, name, f"expected numbers or a tensor, got {type(answer).__name__}.")
    if got.shape != want.shape:
        return _say(False, name, f"shape {list(got.shape)}, expected {list(want.shape)}.")
    if not got.isfinite().all():
        return _say(False, name, f"{int((~got.isfinite()).sum())} of {got.numel()} values are not finite.")
    worst = float((got - want).abs().max()) if got.numel() else 0.0
    scale = max(float(want.abs().max()), 1e-12) if want.numel() else 1.0
    if worst <= tol * scale:
        return _say(True, name, "exact." if worst == 0 else f"equal to {worst / scale:.0e} of the largest value.")
    for message, wrong in (mistakes or {}).items():
        value = torch.as_tensor(wrong).double().cpu()
        if value.shape == got.shape and float((got - value).abs().max()) <= tol * scale:
            return _say(False, name, message)
    return _say(False, name, f"right shape, wrong values (largest difference {worst:.3g}, values up to {scale:.3g}).")


def check_true(name: str, ok: object, hint: str) -> bool:
    """Print whether a property holds, and the hint where it does not."""
    return _say(bool(ok), name, "holds." if ok else hint)


def passed(name: str, *results: bool) -> Points:
    """The closing line of an exercise's check, and its points, which also go into the reader's record.

    The points of `course.exercises` are shared out evenly over the parts of the check.
    """
    n, possible = sum(map(bool, results)), possible_points(name, len(results))
    points = Points(name, round(possible * n / len(results), 2), possible)
    verdict = "PASSED" if points else "NOT YET"
    print(f"{verdict}: {name} ({n} of {len(results)} checks, {points})")
    keep_points(points)
    return points


def check_written(name: str, answer: str, least: int = 30) -> Points:
    """A written answer: nobody but a person can grade it, so it is kept for one, and the rubric is printed.

    The rubric appears once the answer has `least` words; its points stay at 0 until a person gives them.
    """
    exercise, words = EXERCISES[name], len(str(answer or "").split())
    points = Points(name, 0, exercise.points)
    if words < least:
        print(f"NOT YET: {name}: {words} words; write at least {least}, in full sentences, then run this cell again.")
        return points
    keep(name, answer=str(answer), possible=exercise.points)
    print(f"WRITTEN: {name} ({words} words are kept for whoever grades). One point for each of these:")
    for line in exercise.rubric:
        print(f"  [ ] {line}")
    return points


def _say(ok: bool, name: str, message: str) -> bool:
    print(f"  {'ok  ' if ok else 'no  '} {name}: {message}")
    return ok


def call(name: str, function: Callable, *args) -> object:
    """The function's answer, or None with a printed reason."""
    try:
        return function(*args)
    except Exception as error:  # a check never raises: the reader's mistake is the message
        print(f"  no   {name}: your code stopped with {type(error).__name__}: {error}")
        return None


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers from a generator of its own."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
