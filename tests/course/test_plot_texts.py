"""Every figure that shows tokens, labels or names draws whatever a token may be."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from conceptlab.core import Interval
from conceptlab.course.plots import attacks, autointerp, concept_vectors, pisces, sae, start_here
from conceptlab.course.plots.dashboard import feature_dashboard
from conceptlab.course.plots.style import finish, new_figure, plain, printable

TEXTS = ["$", "$$", "$x$", r"\$", "\\", "$_^{}$", "_^{}", r"$\frac{", "😀",
         "עברית", "مرحبا", "\n", "\t", "\x00", "漢字", "",
         " ", "{", "%", "&", "#", "~", "é", "a$b$c"]  # fmt: skip
AREA = Interval(0.5, 0.4, 0.6, 9)
THREE = np.array([[0.5, 0.4, 0.6]])


def figures(t):
    """Name -> a figure that shows the text wherever a text can stand."""
    one, rows = torch.zeros(1, 2), [[0.5, 0.4, 0.6]] * 2
    yield "context_heat_map", autointerp.context_heat_map(t, [[t, "a", t]], [[1.0, 0.0, 2.0]], [1], [t])
    yield "score_strips", autointerp.score_strips(t, {t: [0.5]}, {t: (0.5, 0.4, 0.6)}, {t: "r"}, t, t)
    yield "word_bars", concept_vectors.word_bars([t], [1.0], [[t, t]], t)
    yield "coherence_tails", concept_vectors.coherence_tails({t: {t: np.ones(3)}}, t)
    yield "share_by_layer", concept_vectors.share_by_layer({t: rows}, 1.0, t)
    yield "clamp_curves", concept_vectors.clamp_curves([1.0, 2.0], {t: {t: rows}}, t, t)
    yield "token_heatmap", sae.token_heatmap({t or "x": [([t, t], [1.0, 2.0], t)]}, t)
    yield "dashboard", feature_dashboard(t, [([t], [1.0], t)], np.ones(3), 0.1, np.ones(3) / 2, [(t, 1.0), (t, -1.0)])
    yield "lens_grid", start_here.lens_grid([[t, t]], one, [0], [t, t], t)
    yield "score_bars", start_here.score_bars({t: {t: AREA}}, t, t)
    yield "plot_reach", pisces.plot_reach(np.ones(1), np.ones(1), [t], [True], t)
    yield "plot_card", pisces.plot_card([t], {t: THREE}, t)
    yield "plot_concepts", pisces.plot_concepts([t], {"pisces": THREE}, t, t)
    yield "attack_matrix", attacks.attack_matrix({t: {t: AREA}}, t)
    yield "recovery_curves", attacks.recovery_curves({t: {1: AREA}}, {t: 0.5}, t, t)
    yield "step_histogram", attacks.step_histogram({t: np.ones(3)}, t)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_whatever_a_token_may_be_is_drawn(text):
    for name, figure in figures(text):
        try:
            figure.canvas.draw()
        except ValueError as error:
            pytest.fail(f"{name}: {error}")
        finally:
            plt.close(figure)


def test_a_dollar_is_shown_as_a_dollar():
    fig, ax = new_figure()
    finish(ax, "costs $5 to $6")
    left = ax._left_title
    assert left.get_text() == plain("costs $5 to $6") and left._preprocess_math(left.get_text()) == (
        "costs $5 to $6",
        False,
    )
    plt.close(fig)


def test_what_the_font_lacks_becomes_a_dot():
    assert printable("é–🙂ש\n\x00漢 $") == "é–····· $"
    assert len(printable("a\tb")) == 3
