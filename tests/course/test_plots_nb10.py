"""Figures of notebook 10: what is drawn of tokens is what the table holds."""

import matplotlib
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from conceptlab.course.plots import early_exit as plots


def test_tokens_stand_in_the_order_of_their_depth():
    rows = [
        {"concept": "tokens", "method": "confidence", "attack": how, "budget": knob, "metric": metric, "value": value}
        for how in ("copied", "kept")
        for knob, depth in (("0.9", "20"), ("0.3", "10"))
        for metric, value in (("depth", depth), ("agreement", "0.5"), ("log_perplexity_ratio", "0"))
    ]
    points = plots.token_points([*rows, {"concept": "verb"}])
    assert points["confidence", "kept"].tolist() == [[10.0, 0.5, 1.0], [20.0, 0.5, 1.0]] and len(points) == 2
    fig = plots.plot_tokens(points, "t")
    assert [line.get_xdata().tolist() for line in fig.axes[1].lines] == [[10.0, 20.0]] * 2
    assert fig.axes[0].lines[0].get_ydata().tolist() == pytest.approx([0.5, 0.5])
    plt.close("all")
