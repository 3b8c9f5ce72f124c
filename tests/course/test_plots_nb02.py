"""Figures of notebook 02: a run that explodes leaves the picture, a power law is a straight line."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from conceptlab.course.plots import sae as plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_training_curves_keep_the_quiet_runs_readable():
    calm, wild = list(np.linspace(1, 0.5, 40)), [1.0, 30.0, *[2.0] * 38]
    fig = plots.training_curves({"calm": calm, "wild": wild, "short": [1.0, 0.9]}, "t")
    ax = fig.axes[0]
    assert ax.get_ylim() == pytest.approx((0.45, 2.0))
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["calm", "wild", "short"]
    smooth = [line for line in ax.lines if len(line.get_xdata()) == 32]
    assert len(smooth) == 2 and smooth[0].get_ydata()[0] == pytest.approx(np.mean(calm[:9]))


def test_width_scaling_finds_the_exponent():
    fig, slope = plots.width_scaling({w: 3 * w**-0.2 for w in (64, 128, 256)}, "t")
    assert slope == pytest.approx(-0.2)
    ax = fig.axes[0]
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["64", "128", "256"]
