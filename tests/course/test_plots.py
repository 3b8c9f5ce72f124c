"""Figures that more than one notebook draws: every number stands where it belongs."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from conceptlab.core import ConceptLabError, Interval
from conceptlab.course.plots import COLORS, attacks, interval_panels, pisces, strength_curves


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def bars(ax):
    """(lower, upper) ends of every vertical interval of a panel, in the order of drawing."""
    found = [c.lines[2][0].get_segments() for c in ax.containers]
    return [[(round(s[0][1], 6), round(s[1][1], 6)) for s in segments] for segments in found]


def test_strength_curves_take_intervals_and_triples_and_put_strengths_in_their_order():
    curves = {
        "own": {"weak": Interval(0.5, 0.4, 0.6, 9), "strong": (0.7, 0.6, 0.9)},
        "shuffled": {"strong": (0.5, 0.45, 0.55)},
    }
    ax = strength_curves(curves, "t", "x", "y", chance=0.5).axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["weak", "strong"]
    assert bars(ax) == [[(0.4, 0.6), (0.6, 0.9)], [(0.45, 0.55)]]
    first, second = (c.lines[0].get_xdata() for c in ax.containers)
    assert first[1] < 1 < second[0], "side by side at the second strength"
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["own", "shuffled"]
    dotted = [line for line in ax.lines if line.get_linestyle() == ":" and len(set(line.get_ydata())) == 1]
    assert [line.get_ydata()[0] for line in dotted] == [0.5]


def test_a_fifth_curve_is_refused():
    with pytest.raises(ConceptLabError, match="4 lines at most; got 5"):
        strength_curves({str(i): {"a": (0.0, 0.0, 0.0)} for i in range(5)}, "t", "x", "y")


def test_interval_panels_keep_a_series_in_its_place_where_a_panel_lacks_one():
    found = {"detects": {"a": [(0.7, 0.6, 0.8)], "b": [Interval(0.5, 0.4, 0.6, 3)]}, "pushes": {"b": [(0.9, 0.8, 1.0)]}}
    fig = interval_panels(found, [""], {"a": "r", "b": "k"}, "AUROC", "t", reference=0.5, numbers=True)
    left, right = fig.axes
    assert left.containers[1].lines[0].get_xdata()[0] == right.containers[0].lines[0].get_xdata()[0]
    assert bars(right) == [[(0.8, 1.0)]] and [t.get_text() for t in right.texts] == ["0.90"]
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["a", "b"]


def test_interval_panels_with_fewer_groups_in_one_panel_and_a_value_without_interval():
    nan = float("nan")
    panels = {"m": {"s": [(1.0, 0.5, 1.5), (2.0, nan, nan), (3.0, 2.0, 4.0)]}, "n": {"s": [(1.0, 0.0, 2.0)]}}
    fig = interval_panels(panels, ["1", "5", "20"], {"s": "k"}, "y", "t", "x")
    assert bars(fig.axes[0]) == [[(0.5, 1.5), (2.0, 2.0), (2.0, 4.0)]]
    assert all([t.get_text() for t in ax.get_xticklabels()] == ["1", "5", "20"] for ax in fig.axes)


def test_the_matrix_of_attacks_says_where_a_number_has_no_interval():
    nan = float("nan")
    found = {"a": Interval(0.5, 0.2, 0.8, 6), "b": Interval(0.4, nan, nan, 2), "c": Interval(0.1, -np.inf, 2.0, 6)}
    told = [t.get_text() for t in attacks.attack_matrix({"pisces": found}, "t").axes[0].texts]
    assert told == ["0.50\n[0.2, 0.8]", "0.40", "0.10\n[-\u221e, 2.0]"]


def test_a_name_keeps_its_look_in_every_figure_of_the_attacks():
    x = {1: Interval(0.5, 0.2, 0.8, 6)}
    first = ("erased + concept text", "erased + unrelated text", "original + concept text", "random edit")
    for names in (first, ("pisces", "npo", "original", "random norm"), ("erased", "its own", "another", "original")):
        found = dict(zip(names, attacks.looks(names), strict=True))
        assert found[names[0]][0] == "target" and len({look[0] for look in found.values()}) == len(names)
        for word, look in attacks.KNOWN.items():
            assert all(found[name] == look for name in names if word in name and name != names[0])
        drawn = attacks.recovery_curves(dict.fromkeys(names, x), {}, "t", "y").axes[0]
        assert [c.lines[0].get_color() for c in drawn.containers] == [COLORS[look[0]] for look in found.values()]


def test_bars_before_and_after_leave_out_what_is_missing_and_hold_six():
    x = Interval(1.0, 0.5, 1.5, 9)
    fig = attacks.before_after({"a": {"erased": x, "attacked": None}, "b": {"erased": x, "attacked": x}}, "t", "y")
    assert len(fig.axes[0].patches) == 3
    with pytest.raises(ConceptLabError, match="6 bars at most; got 7"):
        attacks.before_after({"a": {str(i): x for i in range(7)}}, "t", "y")


def test_paired_differences_have_a_row_per_concept_and_a_mean():
    gaps = {"m": {"other_features": {"golf": 0.1, "japan": 0.3}, "permuted_neurons": {"rome": 0.2}}}
    nan = float("nan")
    means = {"m": {"other_features": Interval(0.2, 0.1, 0.3, 2), "permuted_neurons": Interval(0.2, nan, nan, 1)}}
    ax = pisces.plot_paired(gaps, means, "t", "x").axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["mean", "golf", "japan", "rome"]
    assert list(ax.lines[0].get_xdata()) == [0.1, 0.3] and list(ax.lines[0].get_ydata()) == [1, 2]


def test_a_control_looks_the_same_in_every_panel():
    x, gaps = Interval(0.2, 0.1, 0.3, 3), {"golf": 0.1, "japan": 0.3, "rome": 0.2}
    controls = {"a": ("other_features", "permuted_neurons"), "b": ("other_features", "random_direction")}
    panels = {model: dict.fromkeys(names, gaps) for model, names in controls.items()}
    means = {model: dict.fromkeys(names, x) for model, names in controls.items()}
    fig = pisces.plot_paired(panels, means, "t", "x")
    legend = {t.get_text(): h for t, h in zip(fig.legends[0].get_texts(), fig.legends[0].legend_handles, strict=True)}
    assert list(legend) == [f"minus {pisces.METHOD_STYLE[m][0]}" for m in
                            ("other_features", "permuted_neurons", "random_direction")]  # fmt: skip
    assert len({(h.get_marker(), h.get_color()) for h in legend.values()}) == 3
    drawn = fig.axes[1].lines[1 + len(fig.axes[1].containers[0].lines[1])]  # after the mean's caps
    assert drawn.get_marker() != legend["minus same changes, other neurons"].get_marker()


def test_figures_of_edits_hold_what_they_are_given():
    x = Interval(-1.0, -2.0, -0.5, 9)
    assert len(pisces.plot_kinds({"a": x, "b": x}, "t", "x").axes[0].containers) == 2
    assert len(pisces.plot_parts(["a", "b"], np.ones(2), np.ones(2), "t").axes[0].patches) == 4
    drawn = pisces.plot_collateral({"japan": {"golf": -0.2, "rome": -3.0}, "golf": {"rome": -0.1}}, "t").axes[0]
    assert [t.get_text() for t in drawn.texts] == ["-0.2", "-3.0", "-0.1"]
    with pytest.raises(ConceptLabError, match="6 methods at most; got 7"):
        pisces.plot_plane({m: np.zeros((1, 2)) for m in list(pisces.METHOD_STYLE)[:7]}, "t")
