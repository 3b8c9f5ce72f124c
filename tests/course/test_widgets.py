"""Widgets: they draw what the static function draws, and turn errors into a message."""

import pytest

from conceptlab.concept_vectors.atlas import build_atlas
from conceptlab.core import ConceptLabError
from conceptlab.course.widgets import Panel, png, search_figure, search_widget


@pytest.fixture
def parts(tiny_llama):
    lm = tiny_llama()
    return lm, build_atlas(lm, k=20)


def test_search_widget_draws_the_static_figure(parts):
    lm, atlas = parts
    widget = search_widget(lm, atlas, words="dog, cat")
    assert widget.image.value == png(search_figure(lm, ["dog", "cat"], 8, atlas))
    before = widget.image.value
    widget.controls["count"].value = 3
    assert widget.image.value != before and widget.image.value == png(search_figure(lm, ["dog", "cat"], 3, atlas))
    assert widget.message.value == ""
    widget.controls["count"].value = 21
    assert "1 to 20 vectors, not 21" in widget.message.value and widget.controls["count"].value == 21
    widget.controls["count"].value = 8
    widget.controls["words"].value = "red , blue,"
    assert widget.image.value == png(search_figure(lm, ["red", "blue"], 8, atlas))


def test_an_error_stands_in_place_of_the_figure(parts):
    lm, atlas = parts
    widget = search_widget(lm, atlas, words="dog")
    widget.controls["words"].value = "supercalifragilistic"
    assert "single token" in widget.message.value and "alert" in widget.message.value
    assert widget.image.value == b"" and widget.image.layout.display == "none", "the stale figure is gone"
    widget.controls["words"].value = "dog"
    assert widget.message.value == "" and widget.image.value


def test_a_panel_says_that_it_works_and_an_interruption_stops_it(monkeypatch):
    import time

    from conceptlab.course.widgets import panel

    monkeypatch.setattr(panel, "SHOWN_AFTER", 0.05)
    said = []

    def slow():
        time.sleep(0.8)
        said.append(widget.message.value)
        raise KeyboardInterrupt

    widget = Panel({}, slow, "Go", start=False)
    widget.button.click()
    assert "Working" in said[0] and "Stopped" in widget.message.value and widget.text.value == ""


def test_an_error_of_any_kind_stands_in_place_and_the_busy_sign_is_gone(monkeypatch):
    import time

    from matplotlib.figure import Figure

    from conceptlab.course.widgets import panel

    monkeypatch.setattr(panel, "SHOWN_AFTER", 0.05)
    broken = []

    def draw():
        if broken:
            time.sleep(0.2)
            raise KeyError("<layer>")
        return Figure(), "below"

    widget = Panel({}, draw, "Go", start=False)
    widget.button.click()
    assert widget.image.value and widget.text.value == "below"
    broken.append(True)
    widget.button.click()
    assert "KeyError: &#x27;&lt;layer&gt;&#x27;" in widget.message.value and "Working" not in widget.message.value
    assert widget.image.value == b"" and widget.text.value == "" and widget.image.layout.display == "none"
    unsaved = Panel({}, lambda: Figure(figsize=(1e6, 1e6)), "Go", start=False)
    unsaved.button.click()
    assert "Error" in unsaved.message.value, "a figure that cannot be saved is an error, too"


def test_figures_are_closed(parts):
    import matplotlib.pyplot as plt

    plt.close("all")
    search_widget(*parts, words="dog")
    assert not plt.get_fignums()


# ---- dashboards of features --------------------------------------------------------------------------------
@pytest.fixture
def dictionary(tiny_llama, tmp_path):
    import torch

    from conceptlab import sae as S
    from conceptlab.autointerp import sae_firings
    from conceptlab.data import harvest, token_rows

    lm = tiny_llama()
    texts = [f"the {animal} sat on the mat and looked at the moon" for animal in ("cat", "dog", "bird")]
    found = harvest(lm, token_rows(lm, texts, n_ctx=8), (1,), folder=tmp_path / "h", progress=False)
    sae = S.TopKSAE(S.SAEConfig("topk", lm.d_model, 40, 2, lm.name, 1, lm.mlp_output(1))).requires_grad_(False)
    with torch.no_grad():
        sae.b_enc[7] = -1e9  # a dead feature
    return lm, sae, found, sae_firings(sae, found.tensor(1))


def test_top_contexts_end_near_the_strongest_token_of_each_text(dictionary):
    from conceptlab.course.widgets import top_contexts

    lm, sae, found, firings = dictionary
    feature = int(firings.counts().argmax())
    dense, docs = sae.encode(found.tensor(1))[:, feature], found.docs()
    strongest = sorted((float(dense[docs == d].max()) for d in docs.unique()), reverse=True)
    lines = top_contexts(lm, found, firings, feature, before=2, after=1)
    assert [max(values) for _, values, _ in lines] == pytest.approx([s for s in strongest if s > 0], rel=1e-5)
    for words, values, _ in lines:
        assert len(words) == len(values) <= 4
        assert "".join(words) in " the cat sat on the mat and looked at the moon the dog sat the bird sat" or words


def test_feature_widget_draws_the_static_figure(dictionary):
    from conceptlab.course.widgets import feature_figure, feature_widget

    firings = dictionary[-1]
    order = firings.counts().argsort(descending=True).tolist()
    widget = feature_widget(*dictionary, feature=order[0])
    box, image = widget.controls["feature"], widget.image
    assert image.value == png(feature_figure(*dictionary, order[0]))
    before = image.value
    box.value = order[1]
    assert image.value == png(feature_figure(*dictionary, order[1])) != before
    box.value = 7
    assert "none of the" in widget.message.value
    box.value = 4_000
    assert box.value == 4_000 and "does not exist" in widget.message.value, "refused, not clipped"


# ---- vectors and labelled features ---------------------------------------------------------------------------
def test_vector_explorer_draws_the_static_figure_and_refuses_what_is_not_there(tiny_llama):
    from conceptlab.course.widgets import vector_explorer, vector_figure

    lm = tiny_llama()
    widget = vector_explorer(lm, 1, 3, 2.0)
    assert widget.image.value == png(vector_figure(lm, 1, 3, 2.0))
    widget.controls["neuron"].value = 32
    assert "neurons 0 to 31" in widget.message.value and widget.image.value == b""
    widget.controls["neuron"].value = 4
    assert widget.image.value == png(vector_figure(lm, 1, 4, 2.0))
    widget.controls["prompt"].value = " "
    assert "Type a prompt" in widget.message.value
    for value in (1e5, float("nan"), float("inf")):
        with pytest.raises(ConceptLabError, match="Hold the neuron"):
            vector_figure(lm, 1, 0, value)
    with pytest.raises(ConceptLabError, match="layer"):
        vector_figure(lm, 2, 0, 1.0)


def test_feature_browser_searches_steps_and_shows_contexts():
    from conceptlab.autointerp import FeatureLabel
    from conceptlab.course.site import Context
    from conceptlab.course.widgets import FeatureBrowser

    scores = {"detection_auroc": (0.8, 0.7, 0.9)}
    records = [FeatureLabel(6, i, f"label {i}", "ensemble", True, 0.1, scores, 0.5, (" Nile",)) for i in range(3)]
    texts = {6: {0: [Context("Egypt", (" the", " Nile"), (0.0, 1.0))]}}
    browser = FeatureBrowser(records, texts, "nile")
    assert (
        browser.chosen.feature == 0 and "<mark" in browser.panel.text.value and "hit 1 of 3" in browser.panel.text.value
    )
    browser.go(browser.place + 1)
    assert browser.chosen.feature == 1 and "label 1" in browser.panel.text.value
    browser.go(3)
    assert browser.chosen.feature == 0, "after the last hit comes the first"
    browser.box.value = "desert"
    assert "No label" in browser.panel.message.value and browser.panel.text.value == ""
    with pytest.raises(ConceptLabError, match="search"):
        _ = browser.chosen
    browser.show_any()
    assert browser.chosen in records
