"""Widgets: each is a control beside a figure that a function of `plots` also draws without it."""

from __future__ import annotations

import io

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from .cache import ConceptLabError
from .concept_vectors import Atlas, search
from .models import LanguageModel
from .plots.concept_vectors import word_bars


def search_figure(lm: LanguageModel, words: list[str], n: int = 8, atlas: Atlas | None = None) -> Figure:
    """The `n` best vector ends for some words as a figure: the widget's picture, and the static one beside it."""
    found = search(lm, words, n, atlas)
    title = f"{lm.name}: vectors that promote " + ", ".join(words[:4]) + (", ..." if len(words) > 4 else "")
    return word_bars([v.name for v in found], [v.score for v in found], [v.tokens[:8] for v in found], title)


def search_widget(lm: LanguageModel, atlas: Atlas, words: str = "music, song, guitar") -> ipywidgets.VBox:
    """A search box over the atlas: type words, separated by commas, and press Enter."""
    box = ipywidgets.Text(words, description="words", continuous_update=False)
    count = ipywidgets.IntSlider(8, 1, 20, description="vectors", continuous_update=False)
    image, message = ipywidgets.Image(format="png"), ipywidgets.HTML()

    def show(_change=None) -> None:
        try:
            figure = search_figure(lm, [w.strip() for w in box.value.split(",") if w.strip()], count.value, atlas)
        except ConceptLabError as error:
            message.value = str(error)
            return
        message.value, image.value = "", png(figure)

    box.observe(show, "value")
    count.observe(show, "value")
    show()
    return ipywidgets.VBox([ipywidgets.HBox([box, count]), message, image])


def png(figure: Figure) -> bytes:
    """A figure as PNG; it is closed afterwards, so that a notebook does not show it a second time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return buffer.getvalue()
