"""What authors and teachers make from the notebooks: student copies, keys, the README's picture, features' texts."""

from __future__ import annotations

from pathlib import Path

from ..core import ConceptLabError, atomic_path, say
from ..models import load_model
from . import notebook as nbfile
from .instructor import write_instructor
from .nbgrader import write_assignments
from .plots.picture import erased_picture
from .selection import find_notebooks
from .site import context_articles, write_contexts
from .widgets import png


def student(root: Path, only: list[str]) -> int:
    """Write copies without solutions and outputs to build/student/."""
    for path in find_notebooks(root, only):
        target = root / "build" / "student" / path.name
        try:
            nbfile.write(nbfile.student_copy(nbfile.read(path)), target)
        except ValueError as error:
            raise ConceptLabError(f"{path.name}: {error}.") from None
        say(f"{target.relative_to(root)}")
    return 0


def instructor(root: Path) -> int:
    """Write key, rubrics, schedules and the assignments for nbgrader to build/instructor/."""
    notebooks, folder = find_notebooks(root, []), root / "build" / "instructor"
    for path in (*write_instructor(notebooks, folder), *write_assignments(notebooks, folder / "nbgrader")):
        say(f"{path.relative_to(root)}")
    return 0


def write_picture(root: Path) -> int:
    """Draw the README's picture from the lab's table."""
    path = root / "docs" / "images" / "japan_erased.png"
    with atomic_path(path) as temporary:
        temporary.write_bytes(png(erased_picture(root / "data" / "results" / "lab_smollm2-135m.csv")))
    say(f"{path.relative_to(root)}")
    return 0


def write_feature_contexts(root: Path) -> int:
    """Run texts through both models and write data/contexts; minutes for each."""
    articles = context_articles()
    for model in ("smollm2-135m", "gemma3-270m"):
        for path in write_contexts(load_model(model), articles, root / "data" / "contexts"):
            say(f"{path.relative_to(root)}")
    return 0
