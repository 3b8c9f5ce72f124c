"""Figures of notebook 07: numbers stand where they belong, and the drawing is readable on every page."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from conceptlab.core import Interval
from conceptlab.course.plots import dissection as plots
from drawn import assert_on_its_canvas

ROWS = {n: Interval(v, v - 0.1, v + 0.2, 8) for n, v in {"0-4": 0.1, "5-9": 0.4, "9-9": 0.3, "0-9": 1.0}.items()}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_the_drawing_lies_on_its_canvas_and_says_what_it_shows():
    assert_on_its_canvas(plots.diagram(), "value vectors")


def test_windows_are_joined_and_single_and_all_layers_stand_apart():
    gap = {**ROWS, "5-9": Interval.unmeasured("nothing lost")}
    fig = plots.plot_windows({"coefficients": ROWS, "coefficients, random edit": gap}, "t $", controls=("coefficients, "
                             "random edit",))  # fmt: skip
    ax = fig.axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0-4", "5-9", "9", "all"]
    points = ax.containers[0].lines[0]
    assert points.get_ydata().tolist() == [0.1, 0.4, 0.3, 1.0]
    joined = [line for line in ax.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 2]
    assert any(line.get_ydata().tolist() == [0.1, 0.4] for line in joined)
    assert len(ax.containers[1].lines[0].get_xdata()) == 3
    fig.canvas.draw()


def test_panels_moves_and_the_map():
    fig = plots.plot_panels({"a": {"values": ROWS}, "b": {"values": ROWS}}, "t", "y")
    assert len(fig.axes) == 2 and fig.axes[0].get_ylabel() == "y"
    cut = plots.plot_panels({"a": {"values": ROWS}}, "t", "y", (-0.2, 0.5)).axes[0]
    assert cut.get_ylim() == (-0.2, 0.5) and [t.get_text() for t in cut.texts] == ["1.0"]  # beyond the edge: its number
    moves = plots.plot_moves({"npo": np.full((4, 3), 0.002)}, "t").axes[0]
    assert moves.lines[0].get_ydata().tolist() == pytest.approx([0.2] * 4)
    fig = plots.plot_collateral(np.array([[0.1, np.nan], [2.0, 1.0]]), ["a", "b"], ["golf", "japan"], "t")
    assert [t.get_text() for t in fig.axes[0].texts] == ["0.10", "2.00", "1.00"]
    fig.canvas.draw()
