"""Figures of notebook 09: numbers of the table stand where they belong, the drawing is readable."""

import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from conceptlab.course.plots import directions as plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def row(concept, method, attack, budget, metric, value, low=None, high=None):
    ends = (value if x is None else x for x in (low, high))
    numbers = dict(zip(("value", "low", "high"), (str(value), *map(str, ends)), strict=True))
    return {"concept": concept, "method": method, "attack": attack, "budget": budget, "metric": metric} | numbers


ROWS = [
    row("naive", "difference", "", "10", "auroc", 0.9, 0.8, 1.0),
    row("naive", "difference", "", "2", "auroc", 0.7, 0.6, 0.8),
    row("naive", "words", "", "", "auroc", 1.0),
    row("steering", "added", "naive", "1", "step", 0.5, 0.1, 0.9),
    row("steering", "added", "random 0", "1", "step", 0.2),
    row("steering", "multiplied", "naive", "-1", "step", -0.5, -0.9, -0.1),
    row("steering", "multiplied", "random 0", "-1", "step", 0.3),
    row("steering", "multiplied", "random 1", "-1", "step", -0.2),
]


def test_a_curve_is_in_the_order_of_layers():
    assert plots.curve(ROWS, "naive", "difference", "").tolist() == [[0.7, 0.6, 0.8], [0.9, 0.8, 1.0]]
    assert plots.curve(ROWS, "naive", "difference", "nowhere").shape == (0, 3)
    assert plots.number(ROWS, "naive", "words") == (1.0, 1.0, 1.0) and plots.number([], "naive", "words") is None


def test_doses_tell_named_directions_from_random_ones():
    lines, drawn = plots.doses(ROWS, "added", ("step",), {"naive": "the naive one"})
    assert lines == {"step": {"the naive one": {1.0: (0.5, 0.1, 0.9)}}}
    assert drawn == {"step": {1.0: [0.2], -1.0: [0.2]}}  # minus a random direction is one, too
    assert plots.outside(lines, drawn) == {"the naive one": (1, 1)}
    assert plots.outside(
        {"step": {"x": {1.0: (0.3, 0.0, 1.0), 2.0: (9.0, 9.0, 9.0)}}}, {"step": {1.0: [0.2, 0.4]}}
    ) == {"x": (0, 1)}
    fig = plots.plot_doses(lines, drawn, "t")
    (ax,) = fig.axes
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["random directions", "the naive one"]
    assert ax.containers[0].lines[0].get_xydata().tolist() == [[0, 0], [1, 0.5]]


def test_ablations_stand_beside_the_random_ones():
    (line,) = plots.ablations(ROWS, "naive", ("step", "copy"))
    assert line == ("-1", "step", "-0.50 [-0.90, -0.10]", "-0.20 to +0.30 (2)")


def test_ladder_and_layers_leave_out_what_is_not_there():
    fig = plots.plot_ladder(
        ["a", "b"], {"own": [(0.9, 0.8, 1.0), (0.5, 0.4, 0.6)], "said": [None, (0.6, 0.5, 0.7)]}, "t"
    )
    own, said = fig.axes[0].containers
    assert own.lines[0].get_ydata().tolist() == [0.9, 0.5] and said.lines[0].get_ydata().tolist() == [0.6]
    ax = plots.plot_layers({"s": np.array([[0.5, 0.4, 0.6]] * 3)}, "t", {"dealt": np.ones(3)}).axes[0]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["s", "dealt"]


def test_the_plane_has_a_mark_per_kind():
    ax = plots.plot_plane({"step": np.zeros((3, 2)), "memory": np.ones((2, 2))}, ("x", "y"), "t").axes[0]
    assert [len(c.get_offsets()) for c in ax.collections] == [3, 2]


def test_the_drawing_keeps_its_words_inside():
    drawing = plots.diagram()
    root = ET.fromstring(drawing.svg())
    texts = root.findall("{http://www.w3.org/2000/svg}text")
    assert len(texts) > 12 and "same question" in drawing.alt
    for text in texts:
        width = 0.62 * float(text.get("font-size")) * len(text.text)
        x, anchor = float(text.get("x")), text.get("text-anchor")
        left = x - {"start": 0, "middle": 0.5, "end": 1}[anchor] * width
        assert left >= 0 and left + width <= drawing.width and 0 < float(text.get("y")) <= drawing.height, text.text


def test_lines_over_layers_can_stand_without_their_bands():
    curves = {"a": np.array([[0.5, 0.4, 0.6], [0.7, 0.6, 0.8]])}
    assert len(plots.plot_layers(curves, "t").axes[0].collections) == 1
    assert not plots.plot_layers(curves, "t", None, "cosine", bands=False).axes[0].collections


def test_doses_beyond_random_ones_are_named_by_kind_and_side():
    lines = {
        "step": {"naive": {1.0: (0.5, 0.0, 1.0), -1.0: (-0.5, -1.0, 0.0), 2.0: (9.0, 9.0, 9.0)}},
        "copy": {"naive": {}},
    }
    random = {"step": {1.0: [0.1, 0.2], -1.0: [-0.6, 0.1]}, "copy": {}}
    assert plots.beyond_random(lines, random) == [("naive", "1 of 2: +1 above", "0 of 0: none")]
    assert plots.beyond_random({"step": {"x": {-0.5: (-1.0, -2.0, 0.0)}}}, {"step": {-0.5: [0.0]}})[0][1].endswith(
        "below"
    )


def test_difficulty_counts_templates_in_which_both_kinds_are_neither_easy_nor_hopeless():
    right = {("step", "city"): 0.5, ("step", "month"): 0.1, ("step", ""): 0.3}
    right |= {("copy", "city"): 0.7, ("copy", "month"): 0.5, ("copy", ""): 0.6}
    rows = [row("step-copy", "accuracy", kind, template, "accuracy", x) for (kind, template), x in right.items()]
    assert plots.difficulty(rows) == [("step-copy", "step 0.30, copy 0.60", "1 of 2: city")]
    assert plots.difficulty(rows, high=0.6)[0][2] == "0 of 2: none" and plots.difficulty([]) == []


def test_the_verdict_says_where_something_is_surely_left():
    rows = [row("verdict", n, "own", "", "share", x, x - 0.2, x + 0.2) for n, x in (("a", 0.3), ("b", 0.1))]
    said = plots.left_over(rows, ("a", "b", "c"))
    assert said == "surely left on a (30%) of 2 matched sets; no interval reaches above 50%"
    assert "none of 0" in plots.left_over([], ("a",))
