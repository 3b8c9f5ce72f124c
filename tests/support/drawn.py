"""What every drawn diagram must keep to."""

import xml.etree.ElementTree as ET

SVG = "{http://www.w3.org/2000/svg}"


def assert_on_its_canvas(drawing, *said):
    """Every box lies inside the picture, and the alternative text holds these words."""
    root = ET.fromstring(drawing.svg())
    for words in said:
        assert words in root.get("aria-label")
    for box in root.findall(f"{SVG}rect"):
        x, y, w, h = (float(box.get(k)) for k in ("x", "y", "width", "height"))
        assert 0 <= x and x + w <= drawing.width and 0 <= y and y + h <= drawing.height
