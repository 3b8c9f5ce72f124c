"""Points go into a record, copies into a table of grades, and a teacher gets key, rubrics and schedule."""

import csv
import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from conceptlab import cli
from conceptlab.core import ConceptLabError
from conceptlab.course import (
    EXERCISES,
    Points,
    exercises,
    exercises_of,
    predict,
    progress_lines,
    read_record,
    recall_guess,
)
from conceptlab.course import checks as course_checks
from conceptlab.course import record as record_module
from conceptlab.course import run as course
from conceptlab.course.checks import check_written, feedback, passed
from conceptlab.course.exercises import Exercise, possible_points
from conceptlab.course.grading import grade_copy
from conceptlab.course.instructor import SCHEDULES, rubric, schedule
from conceptlab.course.record import VARIABLE, course_root, record_path

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
IMPORT = "from conceptlab.course.checks import check_written, passed\n"


@pytest.fixture
def record(tmp_path, monkeypatch):
    path = tmp_path / "build" / "progress.json"
    monkeypatch.setenv(VARIABLE, str(path))
    return path


@pytest.fixture
def written(monkeypatch):
    """A written exercise in the list."""
    sample = Exercise("00", "a sample", 2, "easy", 5, ("Names the control.", "Says what is not shown."))
    for module in (exercises, feedback, record_module):
        monkeypatch.setattr(module, "EXERCISES", {**exercises.EXERCISES, sample.name: sample})
    return sample


def test_points_are_true_where_nothing_is_missing():
    assert Points("a", 3, 3) and not Points("a", 2.9, 3) and not Points("a", 0, 0)
    assert str(Points("a", 1.5, 3)) == "1.5 of 3 points" and "1.5" in repr(Points("a", 1.5, 3))


def test_a_check_returns_points_in_equal_parts_and_keeps_the_best(record, capsys):
    assert passed("AUROC", True, False, False).earned == 1.0
    assert passed("AUROC", True, True, True)
    assert passed("AUROC", False, False, False).earned == 0
    entry = read_record(record)["AUROC"]
    assert (entry["earned"], entry["possible"], entry["tries"]) == (3.0, 3.0, 3)
    assert passed("not in the list", True, False).possible == possible_points("not in the list", 2) == 2.0


def test_without_a_notebook_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    passed("AUROC", True)
    assert record_path() is None and not list(tmp_path.iterdir())
    monkeypatch.setenv(VARIABLE, "")
    assert record_path() is None


def test_a_record_that_cannot_be_read_stops_no_check(record, capsys):
    record.parent.mkdir()
    record.write_text("{", encoding="utf-8")
    assert passed("AUROC", True)
    assert "record was not written" in capsys.readouterr().out
    for text in ("{", "[]", '{"a": 1}'):
        record.write_text(text, encoding="utf-8")
        with pytest.raises(ConceptLabError, match="move it away"):
            read_record(record)


def test_written_answers_and_predictions_are_kept(record, written, capsys):
    check_written(written.name, "word " * 40)
    predict("layers", 12)
    predict("nothing", None)
    recall_guess("layers", 12, "29 of 30", "Late.")
    recall_guess("nothing", None, 3)
    found = read_record(record)
    assert found[written.name]["answer"].startswith("word") and "earned" not in found[written.name]
    assert found["prediction: layers"] == {"prediction": 12, "measured": "29 of 30"}
    assert "prediction: nothing" not in found
    out = capsys.readouterr().out
    assert "you wrote 12; measured 29 of 30. Late." in out and "you wrote nothing down; measured 3." in out


def test_the_root_is_the_nearest_folder_with_notebooks(tmp_path):
    (tmp_path / "notebooks" / "inner").mkdir(parents=True)
    assert course_root(tmp_path / "notebooks" / "inner") == tmp_path.resolve()


def test_progress_prints_what_was_begun(record, written, capsys):
    assert cli.main(["progress"]) == 0
    assert "Nothing recorded yet" in capsys.readouterr().out
    passed("AUROC", True, False, False)
    check_written(written.name, "word " * 40)
    capsys.readouterr()
    assert cli.main(["progress", "--record", str(record)]) == 0
    out = capsys.readouterr().out
    assert f"03: 1 of {sum(e.points for e in exercises_of('03'))} points" in out
    assert re.search(r"1 of 3  AUROC", out) and f"for a reader  {written.name}" in out
    assert "not tried  your label" in out and "01:" not in out
    assert progress_lines({}) == ["Nothing recorded yet: run the check of an exercise in a notebook."]


def copy_of(folder, name, *cells):
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=list(cells), metadata=KERNEL), folder / name)


def test_copies_are_graded_without_the_solutions_they_hold(tmp_path, capsys):
    solution = f"### BEGIN SOLUTION\n{IMPORT}passed('wrong places', True)\n### END SOLUTION"
    copy_of(
        tmp_path / "ada", "03_autointerp.ipynb",
        new_markdown_cell("# Q?"),
        new_code_cell(IMPORT + "passed('AUROC', True, True, False)"),
        new_code_cell("1 / 0"),
        new_code_cell(IMPORT + "passed('your label', True)"),
        new_code_cell(IMPORT + "pass"),
        new_code_cell(solution),
    )  # fmt: skip
    (tmp_path / "bo").mkdir()
    (tmp_path / "bo" / "01_concept_vectors.ipynb").write_text("{", encoding="utf-8")
    assert cli.main(["grade", str(tmp_path), "--minutes", "2"]) == 0, capsys.readouterr().err
    with (tmp_path / "grades.csv").open(encoding="utf-8", newline="") as handle:
        rows = {(Path(r["copy"]).parts[0], r["exercise"]): r for r in csv.DictReader(handle)}
    assert rows["ada", "AUROC"]["points"] == "2.0" and rows["ada", "AUROC"]["state"] == "part"
    assert rows["ada", "your label"]["state"] == "full", "a cell that fails does not stop the others"
    assert rows["ada", "wrong places"]["state"] == "not reached", "the solution was taken out"
    assert "no notebook that can be read" in rows["bo", "coherence by hand"]["state"]


def test_a_copy_that_hangs_is_stopped(tmp_path):
    copy_of(tmp_path, "03_x.ipynb", new_markdown_cell("# Q?"), new_code_cell("while True: pass"))
    found = grade_copy(tmp_path / "03_x.ipynb", "03_x.ipynb", 0.15)
    assert {g.state for g in found} == {"stopped after 0.15 minutes"} and sum(g.points for g in found) == 0


def test_grade_says_what_is_missing(tmp_path, capsys):
    assert cli.main(["grade", str(tmp_path / "none")]) == 1
    assert cli.main(["grade", str(tmp_path)]) == 1
    assert cli.main(["grade", str(tmp_path), "--minutes", "0"]) == 1
    err = capsys.readouterr().err
    assert "is no folder" in err and "No copy in" in err and "more than 0" in err


def test_a_teacher_gets_key_rubric_and_schedule(tmp_path, capsys):
    task = new_markdown_cell("### Exercise 1: the answer\n<details><summary>Hint</summary>h</details>")
    solution = new_code_cell("### BEGIN SOLUTION\nanswer = 42\n### END SOLUTION\ncheck(answer)")
    copy_of(
        tmp_path / "notebooks", "00_q.ipynb", new_markdown_cell("# Q?"), task, new_code_cell("answer = 0"),
        new_code_cell("check(answer)"), solution,
    )  # fmt: skip
    assert course.main(["instructor", "--root", str(tmp_path)]) == 0
    pages = {p.name: p.read_text(encoding="utf-8") for p in (tmp_path / "build" / "instructor").glob("*.md")}
    assert set(pages) == {"key.md", "rubric.md", "schedule.md"}
    assert "### Exercise 1: the answer\n\n```python\nanswer = 42\n```" in pages["key.md"]
    assert pages["rubric.md"] == rubric() and pages["schedule.md"] == schedule()
    for e in EXERCISES.values():
        assert f"| {e.name} | {e.points} |" in rubric() and all(line in rubric() for line in e.rubric)
    assert list(map(len, SCHEDULES.values())) == [3, 6]


def test_every_exercise_of_a_check_is_in_the_list():
    """A check whose name is not in the list has points of its own making, and grades nobody."""
    folder = Path(course_checks.__file__).parent
    source = "".join(p.read_text(encoding="utf-8") for p in folder.glob("nb*.py"))
    names = set(re.findall(r'passed\("([^"]+)"', source)) | set(re.findall(r'name(?:, \w+)* = "([^"]+)"', source))
    assert names == {e.name for e in EXERCISES.values() if not e.written}
    assert len({e.name for e in EXERCISES.values()}) == len(EXERCISES)
    assert json.dumps([e.points for e in EXERCISES.values()])
