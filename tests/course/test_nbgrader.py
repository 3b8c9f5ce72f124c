"""Assignments for nbgrader: every exercise is marked, and a round trip gives the points that the checks give."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from conceptlab.core import ConceptLabError
from conceptlab.course import notebook as nbfile
from conceptlab.course.exercises import exercises_of
from conceptlab.course.nbgrader import assignment, exercises_in, write_assignments

NOTEBOOKS = sorted(p for p in Path("notebooks").glob("[0-9]*.ipynb") if exercises_of(p.name[:2]))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name[:2])
def test_every_exercise_is_marked_once_with_its_points(path):
    marked = [
        c.metadata["nbgrader"] for c in assignment(nbfile.read(path), path.name[:2]).cells if "nbgrader" in c.metadata
    ]
    ids = [m["grade_id"] for m in marked]
    assert len(ids) == len(set(ids))
    assert sum(m.get("points", 0) for m in marked if m["grade"]) == sum(e.points for e in exercises_of(path.name[:2]))
    nbformat.validate(assignment(nbfile.read(path), path.name[:2]))


def test_a_check_that_nobody_knows_is_refused():
    cell = nbformat.v4.new_code_cell("checks.check_nothing(f)", metadata={"tags": ["check"]})
    with pytest.raises(ConceptLabError, match="names"):
        assignment(nbformat.v4.new_notebook(cells=[cell]), "00")
    assert [e.name for e in exercises_in("checks.check_settles_at(f)", "00")] == ["where the answer settles"]


@pytest.mark.skipif(importlib.util.find_spec("nbgrader") is None, reason="needs nbgrader, which nothing else here does")
def test_a_round_trip_through_nbgrader(tmp_path):
    """One student solves one of two exercises; the gradebook says so."""
    whole = nbfile.read(Path("notebooks/00_start_here.ipynb"))
    kept = [c for c in whole.cells if {"exercise", "check", "solution"} & set(nbfile.tags(c))][3:6]
    first = nbformat.v4.new_code_cell("import torch\nfrom conceptlab.course.checks import nb00_start_here as checks")
    whole.cells = [first, *kept]
    (tmp_path / "in").mkdir()
    nbfile.write(whole, tmp_path / "in" / "00_start_here.ipynb")
    write_assignments([tmp_path / "in" / "00_start_here.ipynb"], tmp_path)

    def nbgrader(*words):
        done = subprocess.run([sys.executable, "-m", "nbgrader", *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]

    nbgrader("generate_assignment", "00_start_here")
    release = nbfile.read(tmp_path / "release" / "00_start_here" / "00_start_here.ipynb")
    assert not any(nbfile.BEGIN in c.source for c in release.cells)
    solution = nbfile.solution_blocks(kept[2].source)[0]
    for student, answer in (("ada", solution), ("ben", "")):
        copy = nbfile.read(tmp_path / "release" / "00_start_here" / "00_start_here.ipynb")
        stub = next(c for c in copy.cells if c.metadata.get("nbgrader", {}).get("solution"))
        stub.source += f"\n{answer}"
        nbfile.write(copy, tmp_path / "submitted" / student / "00_start_here" / "00_start_here.ipynb")
    nbgrader("autograde", "00_start_here")
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{tmp_path}/gradebook.db") as book:
        scores = {s: book.find_submission("00_start_here", s).score for s in ("ada", "ben")}
    assert scores["ada"] == 2 and scores["ben"] < 2
