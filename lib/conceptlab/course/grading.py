"""Grading of copies: every notebook of a folder runs in a process of its own, and the points go into a CSV.

A copy is code of somebody else and runs with the rights of whoever grades: do it in an account that has nothing to
lose.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..core import ConceptLabError, atomic_path
from . import notebook as nbfile
from .exercises import exercises_of
from .record import VARIABLE, read_record

GRADE_COLUMNS = ("copy", "notebook", "exercise", "points", "possible", "tries", "state", "answer")


@dataclass(frozen=True)
class Grade:
    """One exercise of one copy."""

    copy: str  # path below the folder
    notebook: str  # "00"
    exercise: str
    points: float | int
    possible: float | int
    tries: int  # how often its check ran
    state: str  # "full", "part", "open", "to be read", "not reached", or why the copy did not run to its end
    answer: str  # of a written exercise


def grade_folder(folder: Path, out: Path, minutes: float, say: Callable[[str], None]) -> list[Grade]:
    """Grade every `NN_*.ipynb` below a folder and write `out`, renewed after each copy.

    `minutes`: the limit of one copy. Raises ConceptLabError where there is no copy.
    """
    copies = sorted(p for p in folder.rglob("[0-9][0-9]_*.ipynb") if ".ipynb_checkpoints" not in p.parts)
    if not copies:
        raise ConceptLabError(f"No copy in {folder.name}: copies keep their names, such as 01_concept_vectors.ipynb.")
    grades: list[Grade] = []
    for path in copies:
        found = grade_copy(path, str(path.relative_to(folder)), minutes)
        grades += found
        _write(out, grades)
        say(f"{found[0].copy}: {sum(g.points for g in found):g} of {sum(g.possible for g in found):g} points")
    return grades


def grade_copy(path: Path, name: str, minutes: float) -> list[Grade]:
    """Run one copy without the solutions it may still hold; what its checks recorded, exercise by exercise."""
    notebook = path.stem[:2]
    with tempfile.TemporaryDirectory() as folder:
        record, copy = Path(folder) / "record.json", Path(folder) / path.name
        try:
            nbfile.write(nbfile.student_copy(nbfile.read(path)), copy)
            trouble = _run(copy, record, minutes)
        except (ConceptLabError, ValueError) as error:
            trouble = str(error)
        found = read_record(record)
    grades = []
    for exercise in exercises_of(notebook):
        entry = found.get(exercise.name, {})
        earned, answer = float(entry.get("earned", 0.0)), str(entry.get("answer", ""))
        state = "full" if earned >= exercise.points else ("part" if earned > 0 else "open")
        if exercise.written and answer:
            state = "to be read"
        elif not entry:
            state = trouble or "not reached"
        grades.append(
            Grade(name, notebook, exercise.name, earned, exercise.points, int(entry.get("tries", 0)), state, answer)
        )
    return grades or [Grade(name, notebook, "-", 0.0, 0.0, 0, f"no exercise is known for notebook {notebook}", "")]


def _run(copy: Path, record: Path, minutes: float) -> str:
    """Run the copy in a process group that a time limit ends whole; a sentence where it did not reach its end."""
    command = [sys.executable, "-m", "conceptlab.course.run_copy", str(copy)]
    environment = os.environ | {VARIABLE: str(record)}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
    ) as process:
        try:
            code = process.wait(60 * minutes)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    if code is None:
        return f"stopped after {minutes:g} minutes"
    return "" if code == 0 else "the copy could not be run"


def _end(process: subprocess.Popen) -> None:
    """End the process and the kernel it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()


def _write(out: Path, grades: list[Grade]) -> None:
    with atomic_path(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(GRADE_COLUMNS)
        for grade in grades:
            writer.writerow([_plain(getattr(grade, column)) for column in GRADE_COLUMNS])


def _plain(value: object) -> object:
    """A text that a spreadsheet does not take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@") and len(value) > 1 else value
