"""Widgets: they draw what the static function draws, and turn errors into a message."""

import pytest

from conceptlab.concept_vectors.atlas import build_atlas
from conceptlab.course.widgets import png, search_figure, search_widget


@pytest.fixture
def parts(tiny_llama):
    lm = tiny_llama()
    return lm, build_atlas(lm, k=20)


def children(widget):
    (box, count), message, image = widget.children[0].children, widget.children[1], widget.children[2]
    return box, count, message, image


def test_search_widget_draws_the_static_figure(parts):
    lm, atlas = parts
    box, count, message, image = children(search_widget(lm, atlas, words="dog, cat"))
    assert image.value == png(search_figure(lm, ["dog", "cat"], 8, atlas))
    before = image.value
    count.value = 3
    assert image.value != before and image.value == png(search_figure(lm, ["dog", "cat"], 3, atlas))
    assert message.value == ""
    box.value = "red , blue,"
    assert image.value == png(search_figure(lm, ["red", "blue"], 3, atlas))


def test_unknown_words_give_a_message_and_keep_the_figure(parts):
    lm, atlas = parts
    box, _, message, image = children(search_widget(lm, atlas, words="dog"))
    before = image.value
    box.value = "supercalifragilistic"
    assert "single token" in message.value and image.value == before
    box.value = "dog"
    assert message.value == ""


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
    box, message, image = feature_widget(*dictionary, feature=order[0]).children
    assert image.value == png(feature_figure(*dictionary, order[0]))
    before = image.value
    box.value = order[1]
    assert image.value == png(feature_figure(*dictionary, order[1])) != before
    box.value = 7
    assert "none of the" in message.value


def test_label_widget_shows_the_static_table():
    from conceptlab.autointerp import FeatureLabel, hit_lines, search_labels
    from conceptlab.course.widgets import label_widget

    records = [FeatureLabel(0, i, "on <x>", "ensemble", i == 0, 0.1, {}, None, (" Nile",)) for i in range(2)]
    widget = label_widget(records, "nile")
    box, only = widget.children[0].children
    shown = widget.children[1]
    assert hit_lines(search_labels(records, "nile")).replace("<", "&lt;").replace(">", "&gt;") in shown.value
    only.value = True
    assert shown.value.count("0:") == 1
    box.value = "desert"
    assert "No label" in shown.value
    box.value = " "
    assert "at least one word" in shown.value
