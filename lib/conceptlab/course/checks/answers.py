"""The course's own answers to the exercises of all notebooks.

A notebook goes on with the reader's function where its check passed, and with the one from here otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...core import ConceptLabError
from ..record import Points
from . import (
    answers_controls,
    answers_dissection,
    answers_erasing,
    answers_exits,
    answers_parameters,
    answers_reading,
    answers_sae,
    answers_unlearning,
)

ANSWERS: dict[str, Callable[..., Any]] = {
    **answers_reading.ANSWERS, **answers_sae.ANSWERS, **answers_erasing.ANSWERS, **answers_exits.ANSWERS,
    **answers_controls.ANSWERS, **answers_unlearning.ANSWERS, **answers_dissection.ANSWERS,
    **answers_parameters.ANSWERS,
}  # fmt: skip


def use(points: Points, mine: Callable[..., Any]) -> Callable[..., Any]:
    """The reader's function where its check gave all points, else the course's; says which of the two it is."""
    if points.exercise not in ANSWERS:
        raise ConceptLabError(f"The course holds no answer for {points.exercise!r}; call your own function.")
    print(f"From here on: {'your' if points else 'the course' + chr(39) + 's'} version ({points.exercise}).")
    return mine if points else ANSWERS[points.exercise]
