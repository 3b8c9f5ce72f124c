"""`make lab`: JupyterLab on copies in build/lab/, so that working in the course changes nothing that git tracks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ..core import say
from . import notebook as nbfile
from .selection import find_notebooks

README = """# Your copies

`student/` has the notebooks without solutions: begin there. `with_solutions/` has them as they were committed.

Both are yours: change what you like. `make lab` never writes over a notebook that is here; to get a fresh one, delete
or rename yours and call `make lab` again. `docs/` holds the glossary and the other pages that they lead to.
"""


def prepare_lab(root: Path) -> Path:
    """Copies to work in; those that are there already stay as they are. Returns their folder."""
    folder = root / "build" / "lab"
    for path in find_notebooks(root, []):
        student, whole = folder / "student" / path.name, folder / "with_solutions" / path.name
        if not student.exists():
            nbfile.write(nbfile.student_copy(nbfile.read(path)), student)
        if not whole.exists():
            whole.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, whole)
    if (root / "docs").exists():  # the notebooks' words lead to the glossary
        shutil.copytree(root / "docs", folder / "docs", dirs_exist_ok=True)
    (folder / "READ_ME_FIRST.md").write_text(README, encoding="utf-8")
    return folder


def open_lab(root: Path) -> int:
    """Open JupyterLab on the copies, at the first student copy; returns its exit status."""
    folder = prepare_lab(root)
    first = find_notebooks(root, [])[0].name
    say(f"Your copies are in {folder.relative_to(root)}: student/ without solutions, with_solutions/ as committed.")
    if os.environ.get("CONCEPTLAB_NO_LAB"):  # only make the copies
        return 0
    command = [sys.executable, "-m", "jupyterlab", str(folder), f"--LabApp.default_url=/lab/tree/student/{first}"]
    return subprocess.run(command).returncode
