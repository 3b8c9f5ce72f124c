"""What a teacher gets from `make instructor`: key, rubrics and schedules, all made from the notebooks and the list."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..core import atomic_path
from . import notebook as nbfile
from .exercises import EXERCISES, exercises_of

# sessions of 90 minutes: what is done in each
SCHEDULES: Mapping[str, tuple[str, ...]] = {
    "3 x 90 minutes": (
        "00 up to the logit lens, exercises 1 and 2; 01 sections 1 and 4 as a demonstration",
        "02 sections 1 to 4 with exercises 1 and 2; the races are shown, not run; 03 exercises 1, 3 and 5",
        "04 as a demonstration with exercise 1; 05 with one attack per group; the decision table together",
    ),
    "6 x 90 minutes": (
        "00 whole; exercises 1, 2 and 4 to 6; the written one (3) at home",
        "01 sections 1 to 4, exercises 1 to 3",
        "01 sections 5 to 7, exercises 4 and 5; 02 sections 1 and 2, exercises 1 and 2",
        "02 sections 3 to 8, exercises 3 to 5 in pairs; the written one (6) at home",
        "03 whole; exercises 1 to 6; the written one (7) at home",
        "04 and 05: every group erases one concept and attacks the edit of another group; the decision table together",
    ),
}


def write_instructor(notebooks: list[Path], folder: Path) -> list[Path]:
    """Write key.md, rubric.md and schedule.md into a folder; returns their paths."""
    pages = {"key.md": key(notebooks), "rubric.md": rubric(), "schedule.md": schedule()}
    for name, text in pages.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [folder / name for name in pages]


def key(notebooks: list[Path]) -> str:
    """The solutions of all exercises, notebook by notebook."""
    parts = ["# Key: the solutions of all exercises\n"]
    for path in notebooks:
        nb = nbfile.read(path)
        parts.append(f"## {path.stem}: {nbfile.title(nb)}\n")
        for i, cell in enumerate(nb.cells):
            if nbfile.BEGIN in cell.source:
                heading = next((s for s in nb.cells[i - 3].source.splitlines() if s.startswith("#")), "### Exercise")
                code = "\n".join(nbfile.solution_blocks(cell.source))
                parts.append(f"{heading}\n\n```python\n{code}\n```\n")
    return "\n".join(parts)


def rubric() -> str:
    """Points of every exercise, and what a written answer earns them for."""
    lines = ["# Points and rubrics\n"]
    for notebook in dict.fromkeys(e.notebook for e in EXERCISES.values()):
        own = exercises_of(notebook)
        lines.append(f"## Notebook {notebook}: {sum(e.points for e in own):g} points\n")
        lines += ["| exercise | points | difficulty | minutes | graded by |", "|---|---|---|---|---|"]
        for e in own:
            by = "a person" if e.written else "its check, in equal parts"
            lines.append(f"| {e.name} | {e.points:g} | {e.difficulty} | {e.minutes} | {by} |")
        for e in exercises_of(notebook, beyond=True):
            lines.append(f"| {e.name} | {e.points:g} | {e.difficulty} | {e.minutes} | its check; in no sum |")
        for e in (e for e in own if e.written):
            lines += [f"\n**{e.name}**, one point for each:", *(f"* {line}" for line in e.rubric)]
        lines.append("")
    return "\n".join(lines)


def schedule() -> str:
    """The schedules, and the minutes that the exercises take."""
    lines = ["# Schedules\n"]
    for name, sessions in SCHEDULES.items():
        lines += [f"## {name}\n", *(f"{i}. {text}" for i, text in enumerate(sessions, 1)), ""]
    lines += ["## Minutes of the exercises alone\n", "| notebook | exercises | minutes | points |", "|---|---|---|---|"]
    for notebook in dict.fromkeys(e.notebook for e in EXERCISES.values()):
        own = exercises_of(notebook)
        lines.append(f"| {notebook} | {len(own)} | {sum(e.minutes for e in own)} | {sum(e.points for e in own):g} |")
    return "\n".join([*lines, ""])
