"""The contract of everything that changes a model: `applied(lm)`.

Inside the block the model is changed; outside it is bit-identical to what it was, also after an exception, a Ctrl-C at
any moment, or blocks that were left in another order than they were entered. What keeps the contract is
`conceptlab.models.Change`: weights that will be written are given to `change.keep`, everything else that has to be
undone to `change.then`, and the model's stack (`lm.changes`) sees to the order across edits, training, rounding and
hooks. An intervention of your own returns such a Change from `applied`, or is a `@contextmanager` around others.
"""

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
