"""The site as a reader gets it: built once from the committed outputs, then looked at in a headless browser."""

from pathlib import Path

import pytest

import axe
from chromium import FOUND, WHY_SKIPPED, Chromium
from conceptlab.course import notebook
from conceptlab.course.selection import known_notebooks
from conceptlab.course.site import CourseSite
from conceptlab.data import list_concepts, load_concept

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """All notebooks and pages; the folders of the repository are only read."""
    root = tmp_path_factory.mktemp("whole")
    for name in ("notebooks", "docs", "data", "CHANGELOG.md"):
        (root / name).symlink_to(ROOT / name)
    made = CourseSite(root)
    for path in known_notebooks(root):
        made.stage(path.stem, notebook.read(path))
    made.build()
    return made


@pytest.fixture(scope="module")
def page(site):
    with Chromium() as chromium:
        yield chromium.open(site.index.as_uri())


def test_sphinx_has_nothing_to_say_and_no_notebook_is_refused(site):
    assert site.warnings == "" and site.refused == {}


@pytest.mark.skipif(not FOUND, reason=WHY_SKIPPED)
def test_no_page_is_wider_than_a_telephone(site, page):
    pages = [*site.out.glob("*.html"), *site.out.glob("concepts/*.html"), *site.out.glob("api/*.html")]
    pages += sorted(site.out.glob("features/*/*.html"))[::400]
    assert len(pages) > 60
    page.view(390)
    wide = {}
    for path in pages:
        page.go(path.as_uri())
        if (width := page.evaluate("document.documentElement.scrollWidth")) > 390:
            wide[str(path.relative_to(site.out))] = width
    page.view(1280)
    assert wide == {}


@pytest.mark.skipif(not FOUND, reason=WHY_SKIPPED)
@pytest.mark.skipif(axe.AXE is None, reason=axe.WHY_SKIPPED)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious_in_notebooks(site, page, dark):
    page.view(1280, dark=dark)
    for name in ("tour", "04_pisces"):
        page.go((site.out / f"{name}.html").as_uri())
        assert axe.findings(page) == [], name


WORDS = {"wizard": "Harry Potter", "pitcher": "Baseball", "poker": "Gambling", "pumpkin": "Halloween"}


@pytest.mark.skipif(not FOUND, reason=WHY_SKIPPED)
def test_every_title_and_words_of_concepts_find_features(site, page):
    """Each search names the concept, and what comes first matches its title or one of its words, in both models."""
    asked = {load_concept(name).title: load_concept(name) for name in list_concepts()}
    asked |= {word: load_concept(title.lower().replace(" ", "_")) for word, title in WORDS.items()}
    page.go((site.out / "browser.html").as_uri())
    for query, concept in asked.items():
        for model in range(2):
            found = page.evaluate(
                f"(() => {{ const box = document.getElementById('words'); box.value = {query!r}; "
                f"document.getElementById('model').value = {model}; box.dispatchEvent(new Event('input')); "
                "return [document.getElementById('count').textContent, "
                "...[...document.querySelectorAll('#hits li')].map(x => x.textContent)]; })()"
            )
            assert f"concept {concept.title} count too" in found[0] and len(found) > 10, query
            matched = found[1].partition(" matches ")[2].split(". ")[0].lower().split(", ")
            beginnings = tuple(w.lower()[:4] for w in (*concept.words, *concept.title.split()))
            assert any(word.startswith(beginnings) for word in matched), f"{query}: {found[1]}"
    page.evaluate("document.getElementById('words').value = 'the river'; true")
    page.evaluate("document.getElementById('words').dispatchEvent(new Event('input')); true")
    hits = page.evaluate("[...document.querySelectorAll('#hits li')].slice(0, 5).map(x => x.textContent)")
    assert all("river" in hit.lower() for hit in hits), "a stop word asks for nothing beside another word"
    assert page.errors() == []
