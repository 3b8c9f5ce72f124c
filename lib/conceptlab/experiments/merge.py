"""One table from several, for every experiment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core import ConceptLabError, contents, merge


def merge_tables(into: Path, parts: Sequence[Path]) -> Path:
    """`conceptlab.core.merge`, but for tables of attacks, whose numbers per question stand in a file of their own."""
    for path in parts:
        if path.exists() and contents(path).note.get("experiment") == "attacks":
            raise ConceptLabError("A table of attacks sums up over its concepts; make it in one run.")
    return merge(into, parts)
