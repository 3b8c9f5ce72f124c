"""The errors of the library."""

from __future__ import annotations


class ConceptLabError(RuntimeError):
    """An error a reader can act on: one sentence, what was wrong and what to do."""
