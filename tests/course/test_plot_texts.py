"""Every figure that shows tokens, labels or names draws whatever a token may be."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from conceptlab.core import Interval
from conceptlab.course.plots import attacks, autointerp, concept_vectors, pisces, sae, start_here
from conceptlab.course.plots.dashboard import feature_dashboard
from conceptlab.course.plots.style import figure_of, finish, new_figure, plain, printable

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


def test_one_panel_or_an_array_of_panels():
    layers = {"m": {"a": torch.rand(3) + 1, "b": torch.rand(3) + 1}}
    ranks = {"m": {"a": torch.randint(9, (3, 4)), "b": torch.randint(9, (3, 4))}}
    points = {"topk": {"l0": [8.0, 4.0], "fve": [0.9, 0.8]}}
    grid = np.zeros((2, 2, 1))
    for n, figure in (
        (1, pisces.plot_grid([0.1, 0.2], [1.0, 2.0], grid, ["target"], "t")),
        (3, pisces.plot_grid([0.1, 0.2], [1.0, 2.0], grid.repeat(3, 2), ["a", "b", "c"], "t")),
        (2, sae.sparsity_frontier(points, {"fve": "variance", "l0": "L0"}, "t")),
        (1, start_here.norm_growth(layers, "t")),
        (1, start_here.rank_curves(ranks, "t", {"m": 9})),
        (1, start_here.partial_sums([1, 2, 3], layers, "t")),
        (1, start_here.sink_norms({"m": torch.rand(3, 4) + 1}, "t")),
    ):
        assert isinstance(figure, Figure) and len([ax for ax in figure.axes if ax.get_xlabel()]) == n
        figure.canvas.draw()
        plt.close(figure)
    fig, axes = new_figure(1, 1, squeeze=False, sharey=True)
    assert isinstance(axes, np.ndarray) and axes.shape == (1, 1) and figure_of(axes[0, 0]) is fig
    assert isinstance(new_figure()[1], Axes)
    plt.close("all")


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
