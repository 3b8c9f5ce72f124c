"""Figures of notebook 01: every series and number stands where it belongs."""

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from conceptlab.concept_vectors import NoiseStudy
from conceptlab.course.plots import concept_vectors as plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def study(sizes):
    shift = [torch.tensor([1.0, 3.0]), torch.tensor([5.0, 7.0])]
    kinds = [(k, a) for k in ("concept", "matched", "random") for a in ("concept", "unrelated")]
    table = {(k, a, n): shift for k, a in kinds for n in sizes if (k, a) != ("random", "unrelated")}
    return NoiseStudy(10.0, sizes, ("a", "b"), table)


def test_noise_panels_show_five_series_and_fewer_sizes_where_there_are_fewer():
    fig = plots.noise_panels({"one": study((1, 5)), "two": study((1,))}, 50, "claim")
    assert [t.get_text() for t in fig.legends[0].get_texts()] == [name for name, _ in plots.NOISE_SERIES.values()]
    left, right = fig.axes
    assert [len(c.lines[0].get_ydata()) for c in left.containers] == [2] * 5
    assert [len(c.lines[0].get_ydata()) for c in right.containers] == [1] * 5
    assert left.containers[0].lines[0].get_ydata()[0] == 4  # all questions of both concepts


def test_margin_panels_compare_two_kinds():
    sizes = {1: {"a": torch.tensor([-1.0, -3.0])}, 5: {"a": torch.tensor([-2.0, -6.0])}}
    fig = plots.margin_panels({"zero": {"concept": sizes, "matched": sizes}}, 50, "claim")
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["concept vectors", "vectors as active at answers"]
    assert list(fig.axes[0].containers[0].lines[0].get_ydata()) == [-2, -4]


def test_piling_draws_one_line_per_way_of_restoring():
    ax = plots.piling({"restored": [1.0, 2.0], "piled": [1.0, 4.0]}, "claim").axes[0]
    assert [list(line.get_ydata()) for line in ax.lines] == [[1, 2], [1, 4]]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["restored", "piled"]


def test_clamp_curves_shade_what_text_does_not_reach():
    panel = {"concept neuron": [(1.0, 0.9, 1.1), (2.0, 1.5, 3.0), (9.0, 5.0, 20.0)]}
    shaded = plots.clamp_curves([0.0, 1.0, 4.0], {"m": panel}, "y", "claim", "x", natural=1.0).axes[0]
    plain = plots.clamp_curves([0.0, 1.0, 4.0], {"m": panel}, "y").axes[0]
    assert len(shaded.patches) == 1 and not plain.patches
    assert shaded.get_xlabel() == "x" and plain.get_xlabel() == "clamped activation"
