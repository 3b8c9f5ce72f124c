"""Glossary and list of reproductions: every link leads somewhere, and the site shows both pages."""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]


def slug(term: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", term.lower()).replace(" ", "-")


TERMS = [
    line[4:] for line in (ROOT / "docs" / "glossary.md").read_text("utf-8").splitlines() if line.startswith("### ")
]


def test_the_glossary_explains_every_term_once_and_in_order():
    assert len(set(TERMS)) == len(TERMS) and [t.lower() for t in TERMS] == sorted(t.lower() for t in TERMS)
    wanted = "lead reach gates NPO EMBER residue margin".split() + ["rank of a source"]
    assert set(wanted) <= set(TERMS)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("0*.ipynb")), ids=lambda p: p.stem)
def test_links_into_the_glossary_lead_to_a_term(path):
    anchors = {slug(term) for term in TERMS}
    text = "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
    assert set(re.findall(r"docs/glossary\.md#([\w-]+)", text)) <= anchors


def test_links_inside_the_glossary_lead_to_a_term():
    text = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= {slug(term) for term in TERMS}


def test_the_list_of_reproductions_names_notebooks_that_are_there():
    rows = re.findall(r"^\| (\d\d) \|(.*)\|$", (ROOT / "docs" / "reproductions.md").read_text("utf-8"), re.M)
    there = {p.name[:2] for p in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    assert {name for name, _ in rows} <= there and all(rest.count("|") == 3 for _, rest in rows)
