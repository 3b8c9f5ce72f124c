"""Which notebooks a reader means by `ONLY=1`, `ONLY=pisces` or `ONLY=01,02`. Imports nothing that must be installed.

`python lib/conceptlab/course/selection.py 1 pisces` says what is wrong with a choice before anything is set up.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

FIRST = "tour"  # the one notebook without a number; it comes first


def known_notebooks(root: Path) -> list[Path]:
    """The course's notebooks in the order in which they are read."""
    folder = root / "notebooks"
    return [*folder.glob(f"{FIRST}.ipynb"), *sorted(folder.glob("[0-9]*.ipynb"))]


def reading_order(name: str) -> tuple[bool, str]:
    """Sorts notebooks' names as `known_notebooks` does."""
    return name != FIRST, name


def select(paths: list[Path], only: list[str]) -> tuple[list[Path], list[str]]:
    """(those that are meant, in order; words that mean none): by number ("1", "01"), or by a part of the name.

    Without `only` all are meant; commas alone mean none.
    """
    words = [word for text in only for word in re.split(r"[,\s]+", text) if word]
    if not words:
        return (paths, []) if not only else ([], [repr(" ".join(only))])
    chosen, wrong = set(), []
    for word in words:
        plain = word.lower().removesuffix(".ipynb")
        if plain.isdigit():
            found = [p for p in paths if re.match(rf"0*{int(plain)}(?!\d)", p.stem)]
        else:
            begins = [p for p in paths if p.stem.lower().startswith(plain)]
            found = begins or [p for p in paths if plain in p.stem.lower()]
        chosen |= set(found)
        wrong += [] if found else [word]
    return [p for p in paths if p in chosen], wrong


def refusal(paths: list[Path], wrong: list[str]) -> str:
    """The sentence for words that mean no notebook."""
    names = ", ".join(p.stem for p in paths)
    return f"No notebook is meant by {' or '.join(wrong)}. There are: {names}."


def find_notebooks(root: Path, only: list[str]) -> list[Path]:
    """The course's notebooks in order, or those that `only` means. Raises ConceptLabError where a word means none."""
    from ..core import ConceptLabError

    paths = known_notebooks(root)
    if not paths:
        raise ConceptLabError("No notebooks here: call this from the repository's root folder.")
    chosen, wrong = select(paths, only)
    if wrong:
        raise ConceptLabError(refusal(paths, wrong))
    return chosen


if __name__ == "__main__":
    there = known_notebooks(Path.cwd())
    missing = select(there, sys.argv[1:])[1]
    sys.exit(refusal(there, missing) if missing else 0)
