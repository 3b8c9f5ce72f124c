"""Metrics of dictionaries against loops, and the figures that show them."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from conceptlab.course.plots import sae as plots
from conceptlab.course.plots.dashboard import feature_dashboard
from conceptlab.sae import SAE, SAEConfig, metrics


class Fixed(SAE):
    """A dictionary whose features are given: feature j of token i is `x[i, j]`, if positive."""

    def encode(self, x):
        return x.relu()


def fixed(d=4):
    sae = Fixed(SAEConfig("topk", d, d, 1, "m", 0, "h"))
    with torch.no_grad():
        sae.W_dec.copy_(torch.eye(d))
    return sae.requires_grad_(False)


def test_quality_by_hand():
    x = -torch.ones(20, 4)  # never: feature 0
    x[:2, 1] = 2.0  # a tenth: not dense yet
    x[:3, 2] = 2.0  # more than a tenth
    x[:, 3] = 1.0  # always
    for size in (1, 7, 100):
        found = metrics.quality(fixed(), x, batch_size=size)
        assert found.l0 == pytest.approx((0 + 2 + 3 + 20) / 20)
        assert found.dead == 0.25 and found.dense == 0.5
        assert found.mse == pytest.approx((20 + 18 + 17) / 80)  # an error of 1 wherever x is -1
        assert found.fve == pytest.approx(metrics.fve(x, x.relu()), abs=1e-6)
        assert metrics.firing_rates(fixed(), x, batch_size=size).tolist() == pytest.approx([0, 0.1, 0.15, 1])


@pytest.mark.parametrize("chunk", [1, 3, 1_000])
def test_nearest_against_a_loop(chunk):
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(8, 3, generator=g), torch.randn(5, 3, generator=g)
    for others in (b, None):
        values, indices = metrics.nearest(a, others, chunk)
        for i in range(8):
            pool = b if others is not None else a
            cosines = [float(torch.cosine_similarity(a[i], v, 0)) for v in pool]
            if others is None:
                cosines[i] = -2.0
            assert int(indices[i]) == int(np.argmax(cosines))
            assert float(values[i]) == pytest.approx(max(cosines), abs=1e-6)


def drawn(figure):
    figure.canvas.draw()
    plt.close(figure)
    return figure


def test_frontier_sorts_by_sparsity():
    points = {
        "topk": {"l0": [32.0, 8.0], "fve": [0.7, 0.4], "recall": [0.9, 0.5]},
        "relu": {"l0": [20.0], "fve": [0.3], "recall": [0.0]},
    }
    figure = drawn(plots.sparsity_frontier(points, {"fve": "variance explained", "recall": "recall"}, "t"))
    line = figure.axes[0].lines[0]
    assert line.get_xdata().tolist() == [8, 32] and line.get_ydata().tolist() == [0.4, 0.7]
    assert figure.axes[1].get_ylabel() == "recall" and len(figure.axes) == 2


def test_sorted_cosines():
    figure = drawn(plots.sorted_cosines({"a": np.array([0.2, 0.9]), "b": np.array([-0.1])}, "t", "x", "y", least=0.9))
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.9, 0.2]
    assert figure.axes[0].get_ylim()[0] == pytest.approx(-0.1)


def test_dashboard_draws(recwarn):
    lines = [(["a", " word", "\n", "漢"], [0.0, 2.0, 0.1, 0.0], "2.0")] * 3
    tokens = [(" yes", 1.0), ("漢", 0.5), (" ", -0.5)]
    figure = drawn(feature_dashboard("t", lines, np.array([2.0, 1.0]), 0.01, np.array([0.0, 0.01, 0.2]), tokens))
    assert len(figure.axes) == 4
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


def test_figures_draw(recwarn):
    from conceptlab.core import Interval

    line = (["a", " word", "\n", "漢", "א"], [0.0, 2.0, 0.1, 0.0, -1.0], "note")
    long = ([" word"] * 60, [1.0] * 60, "")
    figures = [
        plots.token_heatmap({"neuron 1": [line, long], "silent": [(["a"], [0.0], "")]}, "title"),
        plots.variance_against_k([8, 16], {"features": [0.2, 0.3], "neurons": [0.1, 0.2]}, "title"),
        plots.class_areas(["x"], {"feature": [Interval(0.7, 0.6, 0.8, 9)]}, "title", split_after=1),
    ]
    for figure in figures:
        drawn(figure)
    assert not [w for w in recwarn if "Glyph" in str(w.message)]
