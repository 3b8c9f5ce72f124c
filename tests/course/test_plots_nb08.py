"""Figures of notebook 08: numbers stand where they belong, and the drawing is readable on every page."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from conceptlab.course.plots import specialisation as plots
from drawn import assert_on_its_canvas


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_the_drawing_lies_on_its_canvas_and_says_what_it_shows():
    assert_on_its_canvas(plots.diagram(), "equally active")


def test_costs_and_contrasts_stand_at_their_values():
    rows = np.array([[0.0003, 1.0, 0.5, 1.5], [0.003, 2.0, 1.0, 3.0]])
    fig = plots.plot_costs({"live": {"own": rows}, "m": {"own": rows, "random": rows / 2}}, "t $")
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["the concept's vectors", "random vectors"]
    line = fig.axes[0].containers[0].lines[0]
    assert line.get_xdata().tolist() == pytest.approx([0.03, 0.3]) and line.get_ydata().tolist() == [1.0, 2.0]
    ax = plots.plot_contrasts(["a", "b"], {"m": np.array([[1.0, 0.5, 2.0], [np.nan] * 3])}, "t", "x").axes[0]
    assert ax.containers[0].lines[0].get_xdata()[0] == 1.0
    (first, _) = ax.containers[0].lines[2][0].get_segments()
    assert first[:, 0].tolist() == [0.5, 2.0]


def test_the_map_leaves_its_diagonal_out():
    shown = plots.plot_overlap(np.full((3, 3), 0.2), ["a", "b", "c"], "t").axes[0].images[0].get_array()
    assert np.isnan(np.ma.filled(shown, np.nan).diagonal()).all() and shown[0, 1] == 0.2
    texts = [t.get_text() for t in plots.plot_overlap(np.full((3, 3), 0.2), ["a", "b", "c"], "t").axes[0].texts]
    assert texts == ["0.20"] * 6  # a small map says its numbers, a large one shows them
    assert not plots.plot_overlap(np.full((9, 9), 0.2), list("abcdefghi"), "t").axes[0].texts


def test_layers_add_up():
    ax = plots.plot_layers({"m": np.array([1.0, 3.0])}, "t").axes[0]
    assert ax.lines[0].get_ydata().tolist() == [0.25, 0.75] and ax.lines[0].get_xdata().tolist() == [0.5, 1.0]
