"""The notebooks as assignments of nbgrader: solutions, checks with their points, written answers graded by hand.

`make instructor` writes them to build/instructor/nbgrader, a course folder: `nbgrader generate_assignment NAME`,
`autograde` and `generate_feedback` work in it. A check gives part of its points as nbgrader's partial credit: the last
line of its cell is the number of points earned.
"""

from __future__ import annotations

import ast
import copy
import importlib
import pkgutil
import re
from pathlib import Path

from nbformat import NotebookNode

from ..core import ConceptLabError, atomic_path
from . import checks
from . import notebook as nbfile
from .exercises import Exercise, exercises_of

CONFIG = """\
c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "concept_lab"
c.ClearSolutions.code_stub = {"python": "# your code here"}
c.ExecutePreprocessor.timeout = 3600
c.Execute.timeout = 3600
"""


def write_assignments(notebooks: list[Path], folder: Path) -> list[Path]:
    """Write `source/NAME/NAME.ipynb` of every notebook with exercises, and nbgrader_config.py; returns the paths."""
    paths = []
    for path in notebooks:
        if exercises_of(path.stem[:2]):
            paths.append(folder / "source" / path.stem / path.name)
            nbfile.write(assignment(nbfile.read(path), path.stem[:2]), paths[-1])
    with atomic_path(folder / "nbgrader_config.py") as temporary:
        temporary.write_text(CONFIG, encoding="utf-8")
    return paths


def assignment(nb: NotebookNode, notebook: str) -> NotebookNode:
    """The instructor's version of notebook "00": the solution stands in the cell of its stub, between the markers.

    Raises ConceptLabError for a check of which the list of exercises knows nothing.
    """
    nb = copy.deepcopy(nbfile.clean(nb))
    cells: list[NotebookNode] = []
    for i, cell in enumerate(nb.cells):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        kinds = nbfile.tags(cell)
        if "solution" in kinds:
            continue  # it goes into the cell of the stub
        if "check" in kinds:
            found = exercises_in(cell.source, notebook)
            if not found:
                raise ConceptLabError(
                    f"Cell {i} of notebook {notebook} checks nothing that the list of exercises names."
                )
            stub = next((c for c in reversed(cells) if "exercise" in nbfile.tags(c)), None)
            _mark(stub, cell, found, _solution(nb.cells[i:]))
        cells.append(cell)
    nb.cells = cells
    return nb


def _solution(following: list[NotebookNode]) -> str:
    """The next solution with its markers; empty where a check comes first."""
    for cell in following[1:]:
        if "check" in nbfile.tags(cell):
            return ""
        if "solution" in nbfile.tags(cell):
            blocks = nbfile.solution_blocks(cell.source)
            return f"{nbfile.BEGIN}\n" + "\n".join(blocks) + f"\n{nbfile.END}"
    return ""


def _mark(stub: NotebookNode | None, check: NotebookNode, found: list[Exercise], solution: str) -> None:
    """Give stub and check what nbgrader reads; one cell may check several exercises."""
    exercise, points = found[0], sum(e.points for e in found)
    name = re.sub(r"\W+", "-", exercise.name).strip("-")
    common = {"schema_version": 3, "cell_type": "code", "task": False}
    if stub is not None:
        stub.source += f"\n{solution}" if solution else ""
        by_hand = {"grade": True, "points": exercise.points} if exercise.written else {"grade": False}
        stub.metadata["nbgrader"] = common | {"grade_id": name, "locked": False, "solution": True} | by_hand
    if not exercise.written:
        check.source = _with_points(check.source)
        graded = {"grade": True, "locked": True, "solution": False, "points": points}
        check.metadata["nbgrader"] = common | {"grade_id": f"{name}-check"} | graded


def _with_points(source: str) -> str:
    """The check's cell, ending with the number of points of all its checks."""
    lines = source.splitlines()
    earned: list[str] = []
    for statement in ast.parse(source).body:
        if not re.search(r"\bcheck_\w+\(", ast.unparse(statement)):
            continue
        if isinstance(statement, ast.Expr):
            earned.append(f"points_{len(earned)}")
            lines[statement.lineno - 1] = f"{earned[-1]} = {lines[statement.lineno - 1]}"
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            earned.append(statement.targets[0].id)
    return "\n".join([*lines, f"float({' + '.join(f'{name}.earned' for name in earned)})"])


def exercises_in(source: str, notebook: str) -> list[Exercise]:
    """The exercises that a check's cell is about, found by the names that the checks' functions (or the cell) hold."""
    own = {e.name: e for e in exercises_of(notebook)}
    called = re.findall(r"\b(check_\w+)\(", source)
    found: dict[str, Exercise] = {}
    for text in (source, *(t for name in called for t in _function_sources(notebook, {name}))):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and node.value in own:
                found[str(node.value)] = own[str(node.value)]
    return list(found.values())


def _function_sources(notebook: str, names: set[str]) -> list[str]:
    """The sources of these functions in the checks of a notebook."""
    found = []
    for module in pkgutil.iter_modules(checks.__path__):
        if module.name.startswith(f"nb{notebook}"):
            file = importlib.import_module(f"{checks.__name__}.{module.name}").__file__
            tree = ast.parse(Path(str(file)).read_text(encoding="utf-8"))
            found += [ast.unparse(f) for f in tree.body if isinstance(f, ast.FunctionDef) and f.name in names]
    return found
