"""What a reader has done: points per exercise, predictions and written answers, kept in build/progress.json."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import ConceptLabError, atomic_path
from .exercises import EXERCISES, Exercise, exercises_of

VARIABLE = "CONCEPTLAB_PROGRESS"  # path of the record; empty: none is kept; not set: build/progress.json in a notebook


@dataclass(frozen=True)
class Points:
    """What a check gives for one exercise; true where nothing is missing."""

    exercise: str  # its name in `course.exercises`
    earned: float | int
    possible: float | int

    def __bool__(self) -> bool:
        return self.possible > 0 and self.earned >= self.possible

    def __str__(self) -> str:
        return f"{self.earned:g} of {self.possible:g} points"

    def __repr__(self) -> str:  # a check is often a cell's last line: the line printed before says it all
        return f"Points({self.exercise!r}, {self.earned:g}, {self.possible:g})"


def record_path() -> Path | None:
    """Where the record is kept, or None where nobody asked for one (outside a notebook)."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named) if named else None
    return course_root() / "build" / "progress.json" if in_notebook() else None


def in_notebook() -> bool:
    """Whether the code runs in a kernel."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def course_root(start: Path | None = None) -> Path:
    """The nearest folder above (or at) `start` that holds `notebooks/`; `start` where there is none."""
    start = (start or Path.cwd()).resolve()
    return next((p for p in (start, *start.parents) if (p / "notebooks").is_dir()), start)


def read_record(path: Path) -> dict[str, dict[str, Any]]:
    """Exercise -> entry. Empty where there is no file; raises ConceptLabError for one that is no record."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ConceptLabError(
            f"{path.name} cannot be read as a record ({error}); move it away to begin anew."
        ) from None
    if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
        raise ConceptLabError(f"{path.name} is no record of exercises; move it away to begin anew.")
    return found


def keep(exercise: str, **values: Any) -> None:
    """Put `values` into the entry of an exercise. A record that cannot be written never stops a notebook."""
    path = record_path()
    if path is None:
        return
    try:
        found = read_record(path)
        found[exercise] = found.get(exercise, {}) | values
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
    except (ConceptLabError, OSError) as error:
        print(f"  (the record was not written: {error})")


def keep_points(points: Points) -> None:
    """Record a check's points: the best so far, and how often it was tried."""
    path = record_path()
    if path is None:
        return
    try:
        old = read_record(path).get(points.exercise, {})
    except ConceptLabError:
        old = {}
    best = max(points.earned, old.get("earned", 0.0))
    keep(points.exercise, earned=best, possible=points.possible, tries=old.get("tries", 0) + 1)


def record_file() -> Path:
    """The record of whoever works here: the one that is named, or build/progress.json of the course."""
    return record_path() or course_root() / "build" / "progress.json"


def progress_lines(found: dict[str, dict[str, Any]]) -> list[str]:
    """The record as lines of text: per notebook that was begun its exercises and their sum."""
    lines = []
    for notebook in dict.fromkeys(e.notebook for e in EXERCISES.values()):
        own = exercises_of(notebook)
        if not any(e.name in found for e in own):
            continue
        earned = sum(float(found.get(e.name, {}).get("earned", 0.0)) for e in own)
        lines.append(f"{notebook}: {earned:g} of {sum(e.points for e in own):g} points")
        lines += [f"   {_points(e, found.get(e.name)):>16}  {e.name}" for e in own]
    return lines or ["Nothing recorded yet: run the check of an exercise in a notebook."]


def _points(exercise: Exercise, entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "not tried"
    if exercise.written:
        return "for a reader" if entry.get("answer") else "not written"
    return f"{float(entry.get('earned', 0.0)):g} of {exercise.points:g}"
