"""What authors and teachers make from the notebooks: student copies, keys, the README's pictures, features' texts."""

from __future__ import annotations

import tomllib
from pathlib import Path

from nbformat import NotebookNode

from ..core import ConceptLabError, atomic_path, say
from ..data import list_concepts
from ..models import load_model
from . import notebook as nbfile
from .colab import with_colab_cell
from .headline import find_headline, refresh_table
from .instructor import write_instructor
from .nbgrader import write_assignments
from .plots.picture import erased_picture
from .plots.thumbnails import THUMBNAILS, badge
from .selection import find_notebooks
from .site import context_articles, write_contexts
from .widgets import png
from .widgets.recorded import write_states


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


def refresh(root: Path, only: list[str]) -> int:
    """Write Colab cells and the README's map anew from the committed notebooks; nothing is executed."""
    for path in find_notebooks(root, only):
        nb = nbfile.read(path)
        before = [cell.source for cell in nb.cells]
        if [cell.source for cell in with_colab_cell(nb, root).cells] != before:
            nbfile.write(nb, path)
        refresh_readme(root / "README.md", path.stem, nb)
    return 0


def refresh_readme(readme: Path, name: str, nb: NotebookNode) -> None:
    """The notebook's headline into its row of the README's map."""
    found = find_headline(out for cell in nbfile.code_cells(nb) for out in cell.outputs)
    if found and readme.exists():
        text = refresh_table(readme.read_text(encoding="utf-8"), name, found)
        with atomic_path(readme) as temporary:
            temporary.write_text(text, encoding="utf-8")


def write_picture(root: Path) -> int:
    """Draw the README's pictures: what the lab's table says of Japan, a thumbnail per notebook, and the badges."""
    images = root / "docs" / "images"
    made = {images / "japan_erased.png": png(erased_picture(root / "data" / "results" / "lab_smollm2-135m.csv"))}
    made |= {images / "thumbnails" / f"{name}.svg": f"{draw().svg()}\n".encode() for name, draw in THUMBNAILS.items()}
    made |= {images / "badges" / f"{name}.svg": text.encode() for name, text in badges(root).items()}
    for path, content in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
        say(f"{path.relative_to(root)}")
    return 0


def badges(root: Path) -> dict[str, str]:
    """The README's badges as SVG: facts that stand in the repository, so that no service is asked for them."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    facts = {
        "python": ("Python", project["requires-python"].removeprefix(">=") + " or newer"),
        "licence": ("licence", project["license"]),
        "machine": ("needs", "CPU only"),
        "network": ("after set-up", "offline"),
        "notebooks": ("notebooks", str(len(find_notebooks(root, [])))),
        "concepts": ("concepts", str(len(list_concepts()))),
    }
    return {name: badge(*fact) for name, fact in facts.items()}


def write_feature_contexts(root: Path) -> int:
    """Run texts through both models and write data/contexts; minutes for each."""
    articles = context_articles()
    for model in ("smollm2-135m", "gemma3-270m"):
        for path in write_contexts(load_model(model), articles, root / "data" / "contexts"):
            say(f"{path.relative_to(root)}")
    return 0


def write_widget_states(root: Path) -> int:
    """Run the states of the widgets that the site shows and write data/widgets; about ten minutes."""
    say(f"{write_states(load_model('smollm2-135m'), say).relative_to(root)}")
    return 0
