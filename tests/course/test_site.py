"""The site: staging without Sphinx, one small site built by it, and that site in a real browser where there is one."""

import base64
import re
from functools import partial
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import axe
from chromium import FOUND, WHY_SKIPPED, Chromium
from conceptlab.autointerp import FeatureLabel
from conceptlab.core import ConceptLabError
from conceptlab.course import Grid, course_map
from conceptlab.course.headline import MIME
from conceptlab.course.site import (
    CourseSite,
    api,
    browser,
    builder,
    external_resources,
    pages,
    recorded,
    stage,
    write_figures,
)
from conceptlab.course.widgets import recorded as records
from conceptlab.course.widgets.attacking import LIVE_ATTACKS
from conceptlab.data import list_concepts, load_concept

ROOT = Path(__file__).resolve().parents[2]
PNG = base64.b64encode(
    base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
).decode()
NUMBER = {"label": "drop", "value": 0.5, "low": 0.4, "high": 0.6, "control_label": None, "control": None, "unit": ""}


def small_notebook():
    figure = new_output("display_data", data={"image/png": PNG}, metadata={"image/png": {"alt": "Bars; drop 0.5"}})
    plain = new_output("display_data", data={"image/png": PNG})
    html = Grid([("a", "1")], ["word", "value"], "A caption")._repr_html_()
    table = new_output("display_data", data={"text/html": html, "text/plain": "a 1"})
    number = new_output("display_data", data={"text/plain": "Headline: drop", MIME: NUMBER})
    return new_notebook(
        cells=[
            new_markdown_cell(
                "# Is it sound?\n\n> **Time:** 2 minutes of computing; 90 minutes with the exercises.\n\n"
                "The norm $\\|x\\|_2$ of [next](01_next.ipynb) and [gone](../lib/x.py).\n\n## A section\n\n"
                "| in miniature | same |\n|---|---|\n| Figure 1 | yes |\n"
            ),
            new_code_cell("!git clone somewhere", metadata={"tags": ["colab"]}),
            new_code_cell("long = " + "1 + " * 80 + "1", outputs=[figure], metadata={"tags": ["headline"]}),
            new_code_cell("x", outputs=[plain]),
            new_code_cell("secret = 1", metadata={"jupyter": {"source_hidden": True}, "tags": ["solution"]}),
            new_code_cell("headline()", outputs=[number]),
            new_code_cell("Grid(...)", outputs=[table]),
        ]
    )


# ---- staging ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("a text:\n$$x = 1\n + 2$$\nwith $x$ and $y$.", "a text:\n\n$$x = 1\n + 2$$\n\nwith $x$ and $y$."),
        ("is $$x$$ here", "is \n\n$$x$$\n\nhere"),
        ("apart\n\n$$x$$\n\nalready", "apart\n\n$$x$$\n\nalready"),
        ("> a quote with $$x$$ in it", "> a quote with $$x$$ in it"),
        ("between $a$ and $b$\nnothing", "between $a$ and $b$\nnothing"),
    ],
)
def test_words_behind_a_formula_are_no_mathematics(text, there):
    assert stage.formulas_apart(text) == there


def test_staged_cells_are_folded_dropped_and_described():
    nb = small_notebook()
    found = stage.staged(nb, "00_a.html").cells
    assert "remove-cell" in found[1].metadata["tags"]
    assert found[2].metadata["mystnb"]["image"]["alt"] == "Bars; drop 0.5"
    assert found[3].metadata["mystnb"]["image"]["alt"] == "Figure of the section: A section"
    assert "hide-input" in found[4].metadata["tags"] and "solution" in found[4].metadata["mystnb"]["code_prompt_show"]
    assert "mystnb" not in nb.cells[2].metadata, "the notebook itself stays as it is"


def test_what_would_load_from_a_network_is_refused():
    nb = small_notebook()
    nb.cells[2].outputs[0].data["text/html"] = '<script src="https://cdn.example/x.js"></script>'
    with pytest.raises(ConceptLabError, match="load from the network: https://cdn"):
        stage.staged(nb, "00_a.html")


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//cdn.example/x.css">',
        '<style>@import "https://cdn.example/x.css"</style>',
        "<style>p { background: url(https://cdn.example/x.png) }</style>",
    ],
)
def test_external_resources_are_found(html):
    assert len(external_resources(html)) == 1
    assert external_resources('<a href="https://example.org">paper</a>') == []


def test_links_lead_to_pages_or_become_words():
    text = "[a](01_a.ipynb#x) [m](docs/adding.md) [c](../lib/c.py) [w](https://e.org) ![p](p.png)"
    found = stage.local_links(text, {"01_a", "adding"})
    assert found == "[a](/01_a.ipynb#x) [m](/adding.md) c [w](https://e.org) ![p](p.png)"


def test_the_thumbnail_is_the_headline_figure_on_a_card_of_one_size(tmp_path):
    from PIL import Image

    figure = write_figures(small_notebook(), tmp_path / "f")
    assert figure.name == "00.png" and len(list((tmp_path / "f").glob("*.png"))) == 2
    stage.thumbnail(figure, tmp_path / "t.png")
    assert Image.open(tmp_path / "t.png").size == (640, 360)


# ---- pages -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("box", "minutes"),
    [
        ("3 minutes on two cores; an hour with the exercises", 60),
        ("2 minutes of computing; 90 minutes with the exercises", 90),
        ("three minutes; two to three hours with the exercises", 180),
        ("3 minutes on a CPU", None),
    ],
)
def test_learner_minutes_are_read_from_the_box(box, minutes):
    assert course_map.learner_minutes(box) == minutes


def test_hours_as_they_are_said():
    assert [course_map.hours(m) for m in (40, 60, 90, 450)] == ["40 minutes", "1 hour", "1.5 hours", "7.5 hours"]


def test_tables_are_collected_by_their_head_row():
    source = "text\n\n| in miniature | same |\n|---|---|\n| a | b |\n\n| other | x |\n|---|---|\n| c | d |\n"
    assert pages.tables_with(source, "in miniature") == ["| in miniature | same |\n|---|---|\n| a | b |"]


def test_the_reference_holds_every_exported_function():
    text = api.api_page("core")
    assert "## bootstrap" in text and "def bootstrap" not in text and "bootstrap(" in text
    assert "core" in api.rooms() and "course" in api.rooms()


def test_the_results_mark_controls_by_the_registry_and_show_the_unseen_domain():
    text = pages.results_page(ROOT)
    assert ">unseen spared<" in text and "0.38 [0.01, 0.74]" in text
    linked = dict(re.findall(r'<td><a href="#([\w-]+)">[^<]+</a>([^<]*)</td>', text))
    marked = {anchor for anchor, mark in linked.items() if mark == " (control)"}
    assert {"method-permuted-neurons", "method-random-words"} <= marked and "method-pisces" in set(linked) - marked
    assert set(linked) == set(re.findall(r'<tr id="([\w-]+)"', text)), "each link has its row"
    assert "section 3.2" in text


def test_the_tour_comes_first_on_the_site(tmp_path):
    made = CourseSite(tmp_path)
    for name in ("01_next", "tour", "00_sound"):
        made.stage(name, small_notebook())
    assert [card["name"] for card in made.cards()] == ["tour", "00_sound", "01_next"]


# ---- features --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", list_concepts())
@pytest.mark.parametrize("model", ["smollm2-135m", "gemma3-270m"])
def test_every_concept_finds_features(name, model):
    concept = load_concept(name)
    found = browser.concept_features(model, concept)
    assert len(found) >= 5 and len({(r.layer, r.feature) for r in found}) == len(found)


def test_a_feature_page_shows_contexts_and_escapes_what_is_text():
    record = FeatureLabel(6, 7, "on <x>", "ensemble", True, 0.01, {"detection_auroc": (0.8, 0.7, 0.9)}, 0.6, (" a",))
    context = browser.Context("A & B", (" the", " <cat>"), (0.0, 2.0))
    page = browser.feature_page("m", record, [context], (record, record))
    assert "on &lt;x&gt;" in page and "A &amp; B" in page and '<mark class="a4"> &lt;cat&gt;</mark>' in page
    assert "0.80" in page and external_resources(page) == []
    silent, unknown = (browser.feature_page("m", record, texts, (record, record)) for texts in ([], None))
    assert "fires on none of the texts" in silent and "No texts were run" not in silent
    assert "No texts were run" in unknown and "fires on none" not in unknown


def test_what_the_search_is_made_of_is_in_its_stamp(tmp_path, monkeypatch):
    files = (tmp_path / "labels" / "m" / "candidates.json", tmp_path / "concepts" / "golf.yaml")
    found = {"data_dir": lambda: tmp_path, "models": lambda: ["m"], "list_concepts": lambda: ["golf"]}
    for name, made in (found | {"labelled_layers": lambda model: ()}).items():
        monkeypatch.setattr(browser, name, made)
    stamps = set()
    for text in ("", "{}"):
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            if all(p.exists() for p in files):
                stamps.add(browser._fingerprint())
    assert len(stamps) == 3


# ---- recorded states of the widgets ------------------------------------------------------------------------
BARS = {"logit effect": [["tea", 1.5], ["cup", -2.0]], "change": [["hot", 0.1], ["cold", -0.2]]}
VECTOR = {"found_for": "Golf", "layer": 1, "neuron": 2, "effects": BARS}
RIGHT = {state: {"target": [1, 0, 1], "general": [1, 1, 1]} for state in ("original", "edited", "control <x>")}
ERASURE = {"concept": "Golf", "method": "pisces", "shown": "PISCES", "features": ["6:8"], "tau": 0.5, "mu": 16.0}
LINES = {"original": [[1.0, 2.0], [2.0, 2.5]], "PISCES": [[-1.0, 0.0], [0.0, 0.5]]}
ATTACK = {"concept": "Golf", "attack": "relearning", "strengths": ["0", "1"]}
STATES = {
    "model": "m", "prompt": "The weather is", "n_questions": 3, "steps": 1,
    "vectors": [{**VECTOR, "hold": hold} for hold in (-8.0, 8.0)],
    "erasures": [{**ERASURE, "right": RIGHT, "rows": [["What?", "a", "a", "b", "a"]]}],
    "attacks": [{**ATTACK, "values": LINES, "transcript": []}],
}  # fmt: skip


def test_every_choice_of_radio_buttons_shows_one_state():
    made = recorded.desk_html("d", ("a", "b"), [recorded.State((x, y), x + y) for x in "pq" for y in "rs"])
    assert made.count("<section") == made.count(":checked):has(") == 4 and made.count(" checked>") == 2
    assert "#d:has(#d-0-1:checked):has(#d-1-0:checked) .s1-0 { display: block }" in made
    assert "<script" not in made


def test_a_cell_with_a_widget_leads_to_its_recorded_states():
    nb = new_notebook(cells=[new_code_cell("erasure_desk(lm, saes, {})"), new_code_cell("1 + 1")])
    found = stage.noted(nb, {"recorded_erasure"}).cells
    assert [c.cell_type for c in found] == ["code", "markdown", "code"]
    assert "[Erasure desk](/recorded_erasure.md)" in found[1].source
    browsed = stage.noted(
        new_notebook(cells=[new_code_cell("FeatureBrowser(records)")]), {"recorded_features", "browser"}
    )
    assert "(/recorded_features.md)" in browsed.cells[1].source and "(/browser.md)" in browsed.cells[1].source
    assert len(stage.noted(new_notebook(cells=[new_code_cell("attack_desk(lm, {}, c)")]), set()).cells) == 1


def test_without_a_record_only_the_features_have_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "feature_states", lambda: iter([recorded.State(("river", "first hit"), "x")]))
    monkeypatch.setattr(records, "read_states", lambda model: None)
    assert set(recorded.recorded_pages(tmp_path / "f")) == {"recorded_features"}
    (tmp_path / "f" / "old.png").write_bytes(b"")
    monkeypatch.setattr(records, "read_states", lambda model: STATES)
    assert set(recorded.recorded_pages(tmp_path / "f")) == set(recorded.TITLES) == recorded.recorded_names()
    assert len(list((tmp_path / "f").glob("*.png"))) == 4, "one per figure, and none of another record"


def test_a_record_goes_on_where_it_was_cut_off(tmp_path, monkeypatch, tiny_llama):
    lm, made, broken, fingerprints = tiny_llama(), [], [True], ["a"]

    def state(i):
        if i == 1 and broken:
            raise KeyboardInterrupt
        made.append(i)
        return {"i": i}

    monkeypatch.setattr(records, "states_path", lambda model: tmp_path / f"{model}.json")
    monkeypatch.setattr(records, "made_of", lambda lm: {"model": lm.name, "fingerprint": fingerprints[-1]})
    for room in ("_erasures", "_attacks"):
        monkeypatch.setattr(records, room, lambda lm: iter(()))
    monkeypatch.setattr(records, "_vectors", lambda lm: (partial(state, i) for i in range(3)))
    with pytest.raises(KeyboardInterrupt):
        records.write_states(lm, str)
    broken.clear()
    records.write_states(lm, str)
    assert made == [0, 1, 2] and [p.name for p in tmp_path.iterdir()] == ["tiny-llama.json"]
    broken.append(True)
    with pytest.raises(KeyboardInterrupt):
        records.write_states(lm, str)
    broken.clear()
    fingerprints.append("b")  # other weights under the same name
    records.write_states(lm, str)
    assert made == [0, 1, 2, 0, 0, 1, 2]


def test_the_tracked_record_is_small_and_of_this_code():
    found = records.read_states(recorded.MODEL)
    assert found and records.states_path(recorded.MODEL).stat().st_size < 100_000
    assert found["edits"] == records.edit_sums(recorded.MODEL), "made of other edits; run `states` anew"
    assert len(found["vectors"]) == len(records.SEARCHED) * len(records.HOLDS)
    assert len(found["erasures"]) == len(records.ERASED) * len(records.AT_THE_DESK)
    assert [x["attack"] for x in found["attacks"]] == list(LIVE_ATTACKS)
    for state in found["erasures"]:
        assert all(
            len(right) == found["n_questions"] for by_set in state["right"].values() for right in by_set.values()
        )


# ---- a small site ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A course of two notebooks, with one room, one concept and the features of one layer, built once."""
    root = tmp_path_factory.mktemp("course")
    (root / "notebooks").mkdir()
    for name in ("00_sound", "01_next"):
        nbformat.write(small_notebook(), root / "notebooks" / f"{name}.ipynb")
    (root / "docs").mkdir()
    (root / "docs" / "glossary.md").write_text(
        "# Glossary\n\n**Needle**: a word that search finds.\n", encoding="utf-8"
    )
    with pytest.MonkeyPatch.context() as patch:
        for module in (builder, browser):
            patch.setattr(module, "list_concepts", lambda: ["golf"])
        patch.setattr(builder, "rooms", lambda: ["core"])
        patch.setattr(browser, "models", lambda: ["smollm2-135m"])
        for module in (browser, recorded):
            patch.setattr(module, "labelled_layers", lambda model: (6,))
        patch.setattr(recorded, "SEARCHES", ("river",))
        patch.setattr(records, "read_states", lambda model: STATES)
        browser.records_of.cache_clear()
        made = CourseSite(root)
        for name in ("00_sound", "01_next"):
            made.stage(name, small_notebook())
        made.build()
    browser.records_of.cache_clear()
    return made


def test_pages_are_whole_offline_and_without_warnings(site):
    assert site.warnings == ""
    names = ("index", "00_sound", "browser", "results", "decision_table", "glossary", "api/core", "concepts/golf")
    for name in (*names, *recorded.TITLES):
        page = (site.out / f"{name}.html").read_text(encoding="utf-8")
        assert external_resources(page) == [], name
    page = (site.out / "00_sound.html").read_text(encoding="utf-8")
    assert "<math" in page and 'href="01_next.html"' in page and "x.py" not in page and "git clone" not in page
    assert 'alt="Bars; drop 0.5"' in page and "Show the solution" in page
    desk = (site.out / "recorded_erasure.html").read_text(encoding="utf-8")
    assert "original: 2 of 3 target, 3 of 3 general" in desk and "control &lt;x&gt;" in desk
    index = (site.out / "index.html").read_text(encoding="utf-8")
    assert "drop: 0.5 [0.4, 0.6]" in index and "thumbnails/00_sound.png" in index and "3 hours" in index


def test_links_inside_the_site_lead_somewhere(site):
    for page in [*site.out.glob("*.html"), *site.out.glob("concepts/*.html"), *site.out.glob("api/*.html")]:
        for target in re.findall(r'(?:href|src)="([^"#?]+)', page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_a_second_build_leaves_what_is_there(site):
    before = (site.out / "00_sound.html").stat().st_mtime_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "write_browser", lambda out: None)
        site.build()
    assert (site.out / "00_sound.html").stat().st_mtime_ns == before


@pytest.mark.skipif(not FOUND, reason=WHY_SKIPPED)
def test_in_a_browser_pages_fit_search_works_and_nothing_is_fetched(site):
    with Chromium() as chromium:
        page = chromium.open(site.index.as_uri(), width=390)
        for name in ("index", "00_sound", "browser", "results", *recorded.TITLES):
            page.go((site.out / f"{name}.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
            assert [url for url in page.requests() if not url.startswith(("file:", "data:", "about:"))] == []
            assert page.errors() == []
        code = (
            "[...document.querySelectorAll('div.highlight pre')].every(p => getComputedStyle(p).overflowX === 'auto')"
        )
        page.go((site.out / "00_sound.html").as_uri())
        assert page.evaluate(code), "code that is too wide scrolls"
        page.go((site.out / "search.html").as_uri() + "?q=needle")
        page.wait_for("document.querySelector('#search-results a')?.href.includes('glossary')")
        page.go((site.out / "browser.html").as_uri() + "#words=golf")
        page.wait_for("document.querySelectorAll('#hits li').length > 0")
        page.go(page.evaluate("document.querySelector('#hits a').href"))
        assert "Feature" in page.evaluate("document.querySelector('h1').textContent")
        dark = "getComputedStyle(document.body).backgroundColor"
        light_ground = page.evaluate(dark)
        page.view(390, dark=True)
        assert page.evaluate(dark) != light_ground
        assert page.pdf().startswith(b"%PDF")


@pytest.mark.skipif(not FOUND, reason=WHY_SKIPPED)
def test_radio_buttons_choose_the_recorded_state_without_a_script(site):
    shown = "[...document.querySelectorAll('.state')].filter(s => s.offsetParent).map(s => s.ariaLabel)"
    with Chromium() as chromium:
        page = chromium.open((site.out / "recorded_vectors.html").as_uri())
        assert page.evaluate(shown) == ["Golf: layer 1, neuron 2, -8"]
        page.evaluate("document.getElementById('recorded_vectors-1-0').focus()")
        for kind in ("keyDown", "keyUp"):
            page.send(
                "Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39
            )
        assert page.evaluate(shown) == ["Golf: layer 1, neuron 2, 8"], "by the keyboard"
        page.wait_for("[...document.images].some(i => i.offsetParent && i.naturalWidth > 300)")


@pytest.mark.skipif(not FOUND, reason=WHY_SKIPPED)
@pytest.mark.skipif(axe.AXE is None, reason=axe.WHY_SKIPPED)
def test_axe_finds_nothing_serious(site):
    feature = next((site.out / "features" / "smollm2-135m").glob("*.html")).relative_to(site.out)
    names = ["index.html", "00_sound.html", "browser.html", "results.html", str(feature)]
    with Chromium() as chromium:
        page = chromium.open(site.index.as_uri())
        for dark in (False, True):
            page.view(1280, dark=dark)
            for name in (*names, *(f"{name}.html" for name in recorded.TITLES)):
                page.go((site.out / name).as_uri())
                assert axe.findings(page) == [], f"{name}, {'dark' if dark else 'light'}"
