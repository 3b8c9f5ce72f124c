"""What a run says, which notebooks a reader means, and the copies of `make lab`."""

import subprocess
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from conceptlab.core import ConceptLabError
from conceptlab.course import lab, notebook, progress, run, selection
from conceptlab.course.headline import Headline
from conceptlab.course.results import Result

NAMES = ("tour", "00_start_here", "01_concept_vectors", "04_pisces", "10_early_exit")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def root(tmp_path):
    cells = [
        new_markdown_cell("# Is it?\n\n> **Time:** about 3 minutes on two cores.\n\n## 1. A section of `code`"),
        new_code_cell("### BEGIN SOLUTION\nx = 1\n### END SOLUTION"),
        new_markdown_cell("## 2. Next"),
        new_code_cell("y"),
    ]
    for name in NAMES:
        notebook.write(new_notebook(cells=cells), tmp_path / "notebooks" / f"{name}.ipynb")
    return tmp_path


@pytest.mark.parametrize(
    ("only", "meant"),
    [
        ([], NAMES),
        (["1"], ["01_concept_vectors"]),
        (["01,0"], ["00_start_here", "01_concept_vectors"]),
        (["10"], ["10_early_exit"]),
        (["pisces"], ["04_pisces"]),
        (["tour", "04"], ["tour", "04_pisces"]),
        (["00_start_here.ipynb"], ["00_start_here"]),
    ],
)
def test_which_notebooks_are_meant(root, only, meant):
    assert [p.stem for p in selection.find_notebooks(root, only)] == list(meant)


def test_a_wrong_choice_is_refused_before_anything_is_installed(root):
    with pytest.raises(ConceptLabError, match="No notebook is meant by 77 or pices. There are: tour, 00_start_here"):
        selection.find_notebooks(root, ["77,pices", "1"])
    script = [sys.executable, "-S", "-I", selection.__file__, "77"]  # no site-packages
    done = subprocess.run(script, cwd=root, capture_output=True, text=True)
    assert done.returncode == 1 and "No notebook is meant by 77" in done.stderr
    assert subprocess.run([*script[:-1], "1"], cwd=root).returncode == 0
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "\nrun: only $(VENV)/.installed" in makefile, "the choice is read before the set-up"


def test_time_is_what_the_last_run_took_or_what_the_box_says(root):
    nb = notebook.read(root / "notebooks" / "tour.ipynb")
    assert progress.expected_seconds(nb, None) == 180
    assert progress.expected_seconds(nb, 0.5) == 30
    assert progress.expected_seconds(new_notebook(cells=[]), None) == progress.UNKNOWN


def test_lines_name_section_and_clocks_in_a_hundred_columns(root):
    nb = notebook.read(root / "notebooks" / "04_pisces.ipynb")
    nb.cells[0].source += " and a very long heading that no terminal of a hundred columns can hold beside the clocks"
    clock = progress.Clock({"00_start_here": 60.0, "04_pisces": 180.0, "05_attacks": 120.0})
    told = progress.Progress("04_pisces", nb, clock)
    told.begin(1)
    line = told.line("running 21 s")
    assert len(line) <= 100 and "1. A section of code" in line and "cell 1/2" in line
    assert line.endswith("left about 5:00")
    assert progress.minutes(3725.0) == "1:02:05"


def test_a_long_cell_speaks_and_a_short_one_does_not(root, capsys):
    import time

    nb = notebook.read(root / "notebooks" / "tour.ipynb")
    with progress.Progress("tour", nb, progress.Clock({"tour": 10.0}), every=0.2) as told:
        told.begin(1)
        told.end()
        told.begin(2)
        time.sleep(1.1)
        told.end()
    lines = capsys.readouterr().out.splitlines()
    assert not any("cell 1/2" in line for line in lines)
    assert any("running" in line for line in lines) and "2. Next" in lines[-1] and " s" in lines[-1]


def test_the_last_table_fits_a_hundred_columns():
    number = Headline(
        "known facts about Japan erased (test, over chance; mean of 16 concepts: 45%)",
        69.0,
        43.0,
        94.0,
        "x" * 60,
        59.0,
        "%",
    )
    text = run.table({"04_pisces": Result("Q?", 12.3, number, None), "05_attacks": Result("Q?", 0.0, None, "broke")})
    assert max(map(len, text.splitlines())) <= 100
    assert "69%" in text and "FAILED" in text


def test_copies_to_work_in_stay_as_they_were_left(root):
    (root / "docs").mkdir(exist_ok=True)
    (root / "docs" / "glossary.md").write_text("# Glossary\n", encoding="utf-8")
    folder = lab.prepare_lab(root)
    assert (folder / "student" / ".." / "docs" / "glossary.md").exists(), "where the notebooks' links lead"
    mine = folder / "student" / "04_pisces.ipynb"
    assert "x = 1" not in mine.read_text(encoding="utf-8")
    assert "x = 1" in (folder / "with_solutions" / "04_pisces.ipynb").read_text(encoding="utf-8")
    mine.write_text("mine", encoding="utf-8")
    lab.prepare_lab(root)
    assert mine.read_text(encoding="utf-8") == "mine"
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert "build/" in ignored and folder.relative_to(root).parts[0] == "build"
