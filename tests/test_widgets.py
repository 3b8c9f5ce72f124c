"""Widgets: they draw what the static function draws, and turn errors into a message."""

import pytest

from conceptlab.concept_vectors import build_atlas
from conceptlab.widgets import png, search_figure, search_widget


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
