"""The contract of everything that changes a model: `applied(lm)`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

from ..models import LanguageModel


@runtime_checkable
class Intervention(Protocol):
    """A change of a model: inside `applied` it holds, outside the model is bit-identical to what it was."""

    def applied(self, lm: LanguageModel) -> AbstractContextManager: ...


def applied(intervention: Intervention | None, lm: LanguageModel) -> AbstractContextManager:
    """`intervention.applied(lm)`; None stands for the unchanged model."""
    return nullcontext(lm) if intervention is None else intervention.applied(lm)
