"""Drawn diagrams as SVG, readable on a light and on a dark page: grey strokes, and boxes with a ground of their own.

canvas = Diagram(900, 260, "what the drawing says, for readers who do not see it")
canvas.box(20, 40, 120, 40, "layer 1"); canvas.arrow((140, 60), (180, 60))
canvas        # in a notebook: the drawing, with its alternative text
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from .style import COLORS

LINE = "#7A7A7A"  # 4.3 : 1 on white and on near-black
GROUND = "#F7F7F5"  # the boxes' own: dark ink on it is read on any page
FONT = "font-family='DejaVu Sans, Verdana, sans-serif'"

Number = float | int


class Diagram:
    """A drawing of boxes, arrows and words; units are pixels."""

    def __init__(self, width: int, height: int, alt: str):
        self.width, self.height, self.alt = width, height, alt
        self._parts: list[str] = []

    def box(
        self, x: Number, y: Number, width: Number, height: Number, text: str = "", color: str = "ink", size: int = 13
    ) -> Diagram:
        """A rounded box with centred lines of text; `color`: name in the course's palette, for its edge."""
        edge = LINE if color == "ink" else COLORS[color]
        self._parts.append(
            f"<rect x='{x}' y='{y}' width='{width}' height='{height}' rx='6' fill='{GROUND}' stroke='{edge}' "
            "stroke-width='2'/>"
        )
        lines = text.split("\n") if text else []
        top = y + height / 2 - (len(lines) - 1) * 0.6 * size + 0.35 * size
        for i, line in enumerate(lines):
            self._text(x + width / 2, top + 1.2 * size * i, line, COLORS["ink"], size, "middle")
        return self

    def label(
        self, x: Number, y: Number, text: str, color: str = "ink", size: int = 13, anchor: str = "start"
    ) -> Diagram:
        """A line of text on the page itself, so in a colour that both pages carry."""
        self._text(x, y, text, LINE if color == "ink" else COLORS[color], size, anchor)
        return self

    def arrow(
        self, start: tuple[Number, Number], end: tuple[Number, Number], color: str = "ink", dashed: bool = False
    ) -> Diagram:
        """A straight arrow from point to point."""
        (x1, y1), (x2, y2) = start, end
        shade = LINE if color == "ink" else COLORS[color]
        length = max(((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5, 1e-9)
        ux, uy = (x2 - x1) / length, (y2 - y1) / length
        bx, by = x2 - 9 * ux, y2 - 9 * uy
        dash = " stroke-dasharray='5 4'" if dashed else ""
        self._parts.append(f"<path d='M{x1:.1f} {y1:.1f} L{bx:.1f} {by:.1f}' stroke='{shade}' stroke-width='2'{dash}/>")
        head = f"{x2:.1f},{y2:.1f} {bx - 5 * uy:.1f},{by + 5 * ux:.1f} {bx + 5 * uy:.1f},{by - 5 * ux:.1f}"
        self._parts.append(f"<polygon points='{head}' fill='{shade}'/>")
        return self

    def line(
        self, points: Sequence[tuple[Number, Number]], color: str = "ink", width: Number = 2, dashed: bool = False
    ) -> Diagram:
        """A line through the points."""
        shade = LINE if color == "ink" else COLORS[color]
        dash = " stroke-dasharray='5 4'" if dashed else ""
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f"<polyline points='{way}' fill='none' stroke='{shade}' stroke-width='{width}'{dash}/>")
        return self

    def dot(self, x: Number, y: Number, color: str = "ink", radius: Number = 5) -> Diagram:
        """A filled circle around the point."""
        shade = LINE if color == "ink" else COLORS[color]
        self._parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{radius}' fill='{shade}'/>")
        return self

    def bar(self, x: Number, y: Number, width: Number, height: Number, color: str = "ink") -> Diagram:
        """A filled rectangle without text."""
        shade = LINE if color == "ink" else COLORS[color]
        self._parts.append(f"<rect class='bar' x='{x}' y='{y}' width='{width}' height='{height}' fill='{shade}'/>")
        return self

    def svg(self) -> str:
        """The drawing as text."""
        return (
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {self.width} {self.height}' width='{self.width}' "
            f"style='max-width:100%;height:auto' role='img' aria-label='{escape(self.alt, quote=True)}'>"
            f"<title>{escape(self.alt)}</title>{''.join(self._parts)}</svg>"
        )

    def save(self, path: Path) -> None:
        """Write the drawing to a file."""
        path.write_text(self.svg(), encoding="utf-8")

    def _repr_html_(self) -> str:
        return self.svg()  # SVG inside HTML: shown by JupyterLab, Colab and the site, and read out by its label

    def __repr__(self) -> str:
        return f"Diagram: {self.alt}"

    def _text(self, x: Number, y: Number, text: str, color: str, size: int, anchor: str) -> None:
        self._parts.append(
            f"<text x='{x:.1f}' y='{y:.1f}' {FONT} font-size='{size}' fill='{color}' text-anchor='{anchor}'>"
            f"{escape(text)}</text>"
        )
