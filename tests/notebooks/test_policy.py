"""The rules that every notebook of the course keeps; notebooks/README.md states them in words."""

import ast
import json
import re
import statistics
from pathlib import Path

import nbformat
import pytest

from conceptlab.course import notebook
from conceptlab.course.headline import find_headline, refresh_table
from conceptlab.course.selection import FIRST

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
KNOWN_TAGS = {"colab", "setup", "exercise", "check", "solution", "headline"}
SETUP_LINES = r"\bpip3? install|%pip|%conda|conda install|apt-get|sys\.path|os\.chdir|%cd\b"
UPGRADE = (
    r"--upgrade|--force-reinstall|(?<!\w)-\w*U\w*\b|--pre\b"
    r"|install\b.*(?<![\w/.-])(torch|numpy)\b"
)

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


@pytest.fixture
def nb(path):
    return notebook.read(path)


def text_of(outputs):
    shown = [out.get("text", "") or out.get("data", {}) for out in outputs]
    return "".join(notebook.texts(shown)).strip()


def calls(source):
    """Dotted names of the functions called at the top level of a cell."""
    tree = ast.parse(source)
    values = [node.value for node in tree.body if isinstance(node, ast.Expr | ast.Assign)]
    return {ast.unparse(v.func) for v in values if isinstance(v, ast.Call)}


def exercises(nb):
    return [i for i, cell in enumerate(nb.cells) if "exercise" in notebook.tags(cell)]


def test_file(path):
    raw = json.loads(path.read_text(encoding="utf-8"))
    assert (raw["nbformat"], raw["nbformat_minor"]) >= (4, 5), "save as nbformat 4.5 (cell ids)"
    nbformat.validate(raw)
    assert raw["metadata"]["kernelspec"]["name"] == "python3"
    assert "widgets" not in raw["metadata"], "strip widget state: make commit"
    assert path.stat().st_size < 500_000, f"{path.stat().st_size} bytes; at most 500 kB"


def test_name_title_and_tags(path, nb):
    assert path.stem == FIRST or re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem)
    assert nb.cells[0].cell_type == "markdown" and notebook.title(nb).endswith("?")
    assert {tag for cell in nb.cells for tag in notebook.tags(cell)} <= KNOWN_TAGS


def test_length(path, nb):
    tour = path.stem == FIRST
    assert (10 if tour else 25) <= len(nb.cells) <= 60, "a notebook that grows past 60 cells is two notebooks"
    sizes = [len(cell.source.splitlines()) for cell in notebook.code_cells(nb)]  # blank lines count
    assert statistics.median(sizes) <= 8
    assert max(sizes) <= 25
    prose = sum(len(cell.source.split()) for cell in nb.cells if cell.cell_type == "markdown")
    assert prose >= (350 if tour else 800)  # full sentences for a reader alone; no upper limit


def test_lines_of_code_fit_a_page(path, nb):
    for cell in notebook.code_cells(nb):
        assert max(map(len, cell.source.splitlines()), default=0) <= 100, cell.source


def test_figures_say_what_they_show(path, nb):
    """Each picture has a text of its own, with its claim, for readers who do not see it (`described(fig, alt)`)."""
    for cell in notebook.code_cells(nb):
        for out in cell.outputs:
            if "image/png" in out.get("data", {}):
                alt = out.metadata.get("image/png", {}).get("alt", "")
                assert len(alt.split()) >= 5 and re.search(r"\d", alt), f"claim and a number: {alt!r}\n{cell.source}"


def test_first_code_cell_is_for_colab_and_upgrades_nothing(path, nb):
    first, *others = notebook.code_cells(nb)
    assert "colab" in notebook.tags(first)
    assert not re.search(UPGRADE, first.source)
    for cell in others:
        assert "colab" not in notebook.tags(cell)
        assert not re.search(SETUP_LINES, cell.source), cell.source


def test_committed_as_run_from_top_to_bottom(path, nb):
    cells = notebook.code_cells(nb)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [out for cell in cells for out in cell.outputs]
    assert outputs and not [out for out in outputs if out.output_type == "error"]


def test_the_checklist_is_linked(path, nb):
    assert any("docs/checklist.md" in cell.source for cell in nb.cells if cell.cell_type == "markdown")


def test_names_no_machine(path, nb):
    assert notebook.machine_paths(nb) == []


def test_headline(path, nb):
    assert any("headline(" in cell.source for cell in notebook.code_cells(nb))
    found = find_headline(out for cell in notebook.code_cells(nb) for out in cell.outputs)
    assert found is not None and found.label
    readme = (FOLDER.parent / "README.md").read_text()
    assert refresh_table(readme, path.stem, found) == readme and f"| {found.map_cell()} |" in readme, "run `refresh`"


def test_exercises_are_task_stub_check_solution(path, nb):
    stubs = exercises(nb)
    solutions = [i for i, cell in enumerate(nb.cells) if notebook.BEGIN in cell.source]
    assert solutions == [i + 2 for i in stubs], "each stub: then its check, then its solution"
    for i in stubs:
        task, stub, check, solution = nb.cells[i - 1 : i + 3]
        assert task.cell_type == "markdown"
        assert "<details>" in task.source, "the task has a hint in <details>"
        assert "check" in notebook.tags(check) and "solution" in notebook.tags(solution)
        assert solution.metadata.get("jupyter", {}).get("source_hidden") is True
        assert notebook.BEGIN not in stub.source
        notebook.strip_solutions(solution.source)  # raises if a marker is not closed


def test_checks_fail_on_the_stub_and_pass_after_the_solution(path, nb):
    for i in exercises(nb):
        check, solution = nb.cells[i + 1], nb.cells[i + 2]
        after = solution.source.rpartition(notebook.END)[2]
        again = solution if calls(after) else nb.cells[i + 3]
        source = after if again is solution else again.source
        assert calls(check.source) & calls(source), "call the check again after the solution"
        before, passed = text_of(check.outputs), text_of(again.outputs)
        assert before and passed and before != passed, "the stub must fail its check visibly"


def test_student_copy_holds_no_solution(path, nb):
    copy = notebook.student_copy(nb)
    for i in exercises(nb):
        assert copy.cells[i].source == nb.cells[i].source
        left = copy.cells[i + 2].source
        assert notebook.PLACEHOLDER in left and "SOLUTION" not in left
        given = nb.cells[i].source + left
        secret = "\n".join(notebook.solution_blocks(nb.cells[i + 2].source)).splitlines()
        assert [line for line in secret if line.strip() and line not in given], "the stub already is the solution"
    assert not any(cell.outputs for cell in notebook.code_cells(copy))
