"""The first code cell of every notebook: on Colab it fetches the course, from the address in pyproject.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path

from nbformat import NotebookNode

from . import notebook as nbfile

CELL = """import sys  # on Colab only: fetch the course and what it needs (never upgrades torch or numpy)

if "google.colab" in sys.modules:
    if address := "{address}" or input("Paste the git address of the course: ").strip():
        !git clone -q {{address}} concept-lab && cd concept-lab && pip install -q -e .
        sys.path.insert(0, "concept-lab/lib")  # a running kernel does not see a new install
    else:
        print("No address, no course: run this cell again and paste one.")"""


def course_address(root: Path) -> str:
    """Where the course can be cloned from: `Repository` under [project.urls]; "" where it says none."""
    path = root / "pyproject.toml"
    if not path.exists():
        return ""
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "")


def with_colab_cell(nb: NotebookNode, root: Path) -> NotebookNode:
    """The notebook with the cell of this course; changed in place, and returned."""
    for cell in nbfile.code_cells(nb):
        if "colab" in nbfile.tags(cell):
            cell.source = CELL.format(address=course_address(root))
    return nb
