"""Drawings as SVG and figures with an alternative text."""

import xml.etree.ElementTree as ET

import pytest

from conceptlab.course.plots import described, drawings, early_exit, new_figure
from conceptlab.course.plots.diagrams import Diagram

SVG = "{http://www.w3.org/2000/svg}"


def contrast(one, two):
    def light(color):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    a, b = sorted((light(one), light(two)))
    return (b + 0.05) / (a + 0.05)


def test_a_drawing_is_valid_svg_that_says_what_it_shows(tmp_path):
    drawing = Diagram(200, 100, 'a "quoted" < claim & more')
    drawing.box(5, 5, 80, 30, "p < q\nand r").arrow((85, 20), (150, 20)).label(10, 90, "a & b", "target")
    drawing.save(tmp_path / "drawing.svg")
    root = ET.fromstring((tmp_path / "drawing.svg").read_text(encoding="utf-8"))
    assert root.get("role") == "img" and root.get("aria-label") == drawing.alt
    assert root.find(f"{SVG}title").text == drawing.alt
    assert [t.text for t in root.findall(f"{SVG}text")] == ["p < q", "and r", "a & b"]
    assert drawing._repr_html_() == drawing.svg() and drawing.alt in repr(drawing)


@pytest.mark.parametrize("page", ["#FFFFFF", "#111111"])
def test_the_drawing_of_notebook_10_is_readable_on_light_and_dark_pages(page):
    root = ET.fromstring(early_exit.diagram().svg())
    boxes = [[float(r.get(k)) for k in ("x", "y", "width", "height")] for r in root.findall(f"{SVG}rect")]
    grounds = {r.get("fill") for r in root.findall(f"{SVG}rect")}
    for text in root.findall(f"{SVG}text"):
        x, y = float(text.get("x")), float(text.get("y"))
        inside = any(a <= x <= a + w and b <= y <= b + h for a, b, w, h in boxes)
        grounds_here = grounds if inside else {page}
        assert all(contrast(text.get("fill"), ground) >= 3 for ground in grounds_here), text.text
        assert 0 <= x <= 900 and 0 <= y <= 300


def test_outside_a_notebook_a_described_figure_is_only_returned():
    fig, _ = new_figure()
    assert described(fig, "a claim") is fig


def test_in_a_notebook_the_text_goes_into_the_metadata(monkeypatch):
    import IPython
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr(IPython.display, "display", lambda obj, metadata: shown.append((obj, metadata)))
    fig, _ = new_figure()
    described(fig, "a claim")
    assert shown == [(fig, {"image/png": {"alt": "a claim"}})]


def spans(text):
    """Left and right end of a line of text, with 0.62 of its size per character: what DejaVu Sans takes at most."""
    x, size = float(text.get("x")), float(text.get("font-size"))
    width = 0.62 * size * len(text.text)
    left = {"start": x, "middle": x - width / 2, "end": x - width}[text.get("text-anchor")]
    return left, left + width


@pytest.mark.parametrize("name", drawings.__all__)
def test_the_drawings_of_the_notebooks_are_valid_and_readable(name):
    drawing = getattr(drawings, name)()
    root = ET.fromstring(drawing.svg())
    width, height = map(float, root.get("viewBox").split()[2:])
    assert len(drawing.alt) > 100 and root.get("aria-label") == drawing.alt
    boxes = [r for r in root.findall(f"{SVG}rect") if r.get("class") != "bar"]
    frames = [[float(r.get(k)) for k in ("x", "y", "width", "height")] for r in boxes]
    for text in root.findall(f"{SVG}text"):
        left, right = spans(text)
        x, y = float(text.get("x")), float(text.get("y"))
        assert left >= 0 and right <= width and 8 <= y <= height, text.text
        own = [f for f in frames if f[0] <= x <= f[0] + f[2] and f[1] <= y <= f[1] + f[3]]
        grounds = {r.get("fill") for r in boxes} if own else {"#FFFFFF", "#111111"}
        assert all(contrast(text.get("fill"), ground) >= 3 for ground in grounds), text.text
        for frame in own:
            assert left >= frame[0] - 1 and right <= frame[0] + frame[2] + 1, f"{text.text!r} leaves its box"
    for element in root.iter():
        for number in (element.get("points") or "").split():
            px, py = map(float, number.split(","))
            assert 0 <= px <= width and 0 <= py <= height


def test_lines_dots_and_bars_have_their_colour():
    drawing = Diagram(100, 100, "a claim").line([(0, 0), (10, 20)], "target", 3, dashed=True).dot(5, 5, "general")
    root = ET.fromstring(drawing.bar(1, 2, 3, 4, "neighbour").svg())
    line, dot, bar = (root.find(f"{SVG}{tag}") for tag in ("polyline", "circle", "rect"))
    assert line.get("points") == "0.0,0.0 10.0,20.0" and line.get("stroke-dasharray")
    assert (line.get("stroke"), dot.get("fill"), bar.get("fill")) == ("#D55E00", "#009E73", "#0072B2")
