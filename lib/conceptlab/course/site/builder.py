"""The site's sources in build/site-source and Sphinx over them, again after every notebook with what changed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from ...core import ConceptLabError, atomic_path
from ...data import list_concepts
from .. import notebook as nbfile
from ..headline import find_headline
from ..plots.thumbnails import THUMBNAILS
from ..results import Result
from ..selection import reading_order
from .api import api_page, rooms
from .browser import browser_page, concept_page, write_browser
from .pages import (
    api_index,
    changelog_page,
    decision_page,
    instructor_page,
    landing_page,
    results_page,
    section_page,
    tables_with,
)
from .recorded import TITLES, recorded_names, recorded_pages
from .stage import local_links, noted, staged, thumbnail, write_figures

CONFIGURATION = Path(__file__).parent / "sphinx"  # holds conf.py
HOW_TO = (
    "installing", "library", "adding_a_method", "adding_a_concept", "adding_an_attack", "adding_a_model", "bad_inputs",
    "statistics", "authors",
)  # fmt: skip
SECTIONS = {  # page -> its title, what it is, and the head row of the tables in notebooks that it collects
    "reproductions": (
        "Reproductions",
        "Figures and tables of papers in miniature: what came out the same, what came out otherwise, and why.",
        r"in miniature|\| *paper *\|",
    ),
}


@dataclass(frozen=True)
class Shown:
    """One notebook as the site shows it."""

    nb: NotebookNode  # with outputs
    result: Result | None  # of a run on this machine; None: as it was committed


class CourseSite:
    """The site of one course: `stage` what is to be shown, then `build`."""

    def __init__(self, root: Path):
        self.root, self.source, self.out = root, root / "build" / "site-source", root / "build" / "site"
        self.shown: dict[str, Shown] = {}
        self._fixed: dict[str, str] = {}  # pages that no notebook changes, made once
        self.warnings = ""  # of the last build
        self.refused: dict[str, str] = {}  # notebook -> why its page is not there

    @property
    def index(self) -> Path:
        """The landing page."""
        return self.out / "index.html"

    def stage(self, name: str, nb: NotebookNode, result: Result | None = None) -> None:
        """Show this notebook from the next `build` on. Raises ConceptLabError for one that cannot be shown."""
        self.shown[name] = Shown(nb, result)
        target, picture = self.source / f"{name}.ipynb", self.source / "thumbnails" / f"{name}.png"
        try:
            shown = noted(self._with_links(staged(nb, f"{name}.html"), name), recorded_names() | {"browser"})
            _write_changed(target, nbformat.writes(shown) + "\n")
            figure = write_figures(nb, self.root / "build" / "figures" / name)
            if name in THUMBNAILS:
                _write_changed(picture.with_suffix(".svg"), THUMBNAILS[name]().svg())
            elif figure:
                thumbnail(figure, picture)
            else:
                picture.unlink(missing_ok=True)
            self.refused.pop(name, None)
        except (ConceptLabError, OSError) as error:
            self.refused[name] = str(error)
            for path in (target, picture, self.out / f"{name}.html"):
                path.unlink(missing_ok=True)
            raise

    def build(self) -> Path:
        """Write what has changed; returns the landing page. Raises ConceptLabError if Sphinx stops."""
        self._write_pages()
        running = self._start_sphinx()
        try:
            write_browser(self.out)  # beside Sphinx: half the wait on two cores
        finally:
            self._end_sphinx(running)
        return self.index

    def _with_links(self, nb: NotebookNode, name: str) -> NotebookNode:
        pages = self._documents() | {name}
        for cell in nb.cells:
            if cell.cell_type == "markdown":
                cell.source = local_links(cell.source, pages)
        return nb

    def _docs(self) -> list[str]:
        """Pages in docs/, those for authors last."""
        found = {p.stem for p in (self.root / "docs").glob("*.md")}
        return [*sorted(found - set(HOW_TO)), *(p for p in HOW_TO if p in found)]

    def _documents(self) -> set[str]:
        return {p.stem for p in (self.root / "notebooks").glob("*.ipynb")} | set(self._docs())

    def _write_pages(self) -> None:
        """Everything but the notebooks; a file whose text is the same is left, so that Sphinx leaves its page."""
        pages, cards = self._made_pages(), self.cards()
        docs = self._docs()
        for name in docs:
            text = (self.root / "docs" / f"{name}.md").read_text(encoding="utf-8")
            pages[name] = local_links(text, self._documents())
        look_up = ["decision_table", *(p for p in docs if p not in HOW_TO), *(p for p in SECTIONS if p in pages)]
        sections = {
            "Course": [card["name"] for card in cards if card["page"]],
            "Explore": ["browser", *(p for p in TITLES if p in pages), "results", *dict.fromkeys(look_up)],
            "Use and extend": ["api", *(p for p in docs if p in HOW_TO)],
            "About": ["for_instructors", "changelog"],
        }
        pages["index"] = landing_page(cards, sections)
        for name, text in pages.items():
            _write_changed(self.source / f"{name}.md", text)
        for old in self.source.glob("*.md"):
            if old.stem not in pages:
                old.unlink()

    def _made_pages(self) -> dict[str, str]:
        """Pages that have no file of their own in the repository, by document."""
        if not self._fixed:
            self._fixed = {
                "results": results_page(self.root),
                "changelog": changelog_page(self.root),
                "decision_table": decision_page(),
                "browser": browser_page(self._documents()),
                **recorded_pages(self.source / "recorded"),
                "api": api_index(rooms()),
                **{f"api/{room}": api_page(room) for room in rooms()},
                **{f"concepts/{name}": concept_page(name) for name in list_concepts()},
            }
        pages = {**self._fixed, "for_instructors": instructor_page(self.cards())}
        for name, (title, text, head) in SECTIONS.items():
            if (self.root / "docs" / f"{name}.md").exists():
                continue
            found = [(n, piece) for n, one in sorted(self.shown.items()) for piece in _pieces(one.nb, head)]
            if found:
                pages[name] = section_page(title, text, found)
        return pages

    def cards(self) -> list[Mapping[str, Any]]:
        """What the landing page says of each notebook."""
        cards: list[Mapping[str, Any]] = []
        for name, one in sorted(self.shown.items(), key=lambda item: reading_order(item[0])):
            outputs = [o for c in nbfile.code_cells(one.nb) for o in c.outputs]
            pictures = [self.source / "thumbnails" / f"{name}.{kind}" for kind in ("svg", "png")]
            picture = next((path for path in pictures if path.exists()), None)
            cards.append(
                {
                    "name": name,
                    "question": nbfile.title(one.nb) or name,
                    "page": None if name in self.refused else f"{name}.html",
                    "picture": f"thumbnails/{picture.name}" if picture else None,
                    "headline": find_headline(outputs),
                    "time": reading_time(one.nb),
                    "minutes": one.result.minutes if one.result else None,
                    "error": self.refused.get(name) or (one.result.error if one.result else None),
                }
            )
        return cards

    def _start_sphinx(self) -> subprocess.Popen[str]:
        """In a process of its own: a second build in one process takes every page for changed."""
        for kind in ("thumbnails", "recorded"):
            (self.out / kind).mkdir(parents=True, exist_ok=True)
            for path in sorted((self.source / kind).glob("*.*g")):
                shutil.copyfile(path, self.out / kind / path.name)
        command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-c", str(CONFIGURATION)]
        command += ["-d", str(self.root / "build" / "site-doctrees"), str(self.source), str(self.out)]
        quiet = {**os.environ, "NO_COLOR": "1"}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=quiet)

    def _end_sphinx(self, running: subprocess.Popen[str]) -> None:
        try:
            out, self.warnings = running.communicate()
        except BaseException:  # Ctrl-C: nothing goes on writing
            running.kill()
            running.wait()
            raise
        if running.returncode:
            told = " ".join((out + self.warnings).split())[-300:]
            raise ConceptLabError(f"The site could not be built ({told}); delete build/site-doctrees and try again.")


def _pieces(nb: NotebookNode, head: str) -> list[str]:
    return [piece for cell in nb.cells if cell.cell_type == "markdown" for piece in tables_with(cell.source, head)]


def reading_time(nb: NotebookNode) -> str:
    """What the notebook's own box says about time, in its words ("3 minutes on two CPU cores; an hour with ...")."""
    text = nb.cells[0].source if nb.cells else ""
    found = re.search(r"\*\*Time:\*\*\s*(.+?)(?:\n>?\s*\n|\Z|\n>\s*\*\*)", text, re.S)
    return " ".join(found.group(1).replace("\n>", " ").split()).rstrip(".") if found else ""


def _write_changed(path: Path, text: str) -> None:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
