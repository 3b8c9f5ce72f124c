"""Tables for notebooks: HTML with a plain-text fallback, built from rows of plain values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from ..core import ConceptLabError

Value = object


class Grid:
    """A table with a caption that says what it shows: HTML in a notebook, aligned text elsewhere.

    Numbers are aligned at the right; floats get three significant digits, so format what needs others yourself.
    """

    def __init__(self, rows: Sequence[Sequence[Value]], columns: Sequence[str], caption: str = ""):
        wrong = next((i for i, row in enumerate(rows) if len(row) != len(columns)), None)
        if wrong is not None:
            raise ConceptLabError(f"Row {wrong} has {len(rows[wrong])} values for {len(columns)} columns.")
        self.columns, self.caption = list(columns), caption
        self._numbers = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
        self.cells = [[_shown(value) for value in row] for row in rows]

    def __repr__(self) -> str:
        lines = [self.columns, *self.cells]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]

        def text(line: list[str]) -> str:
            padded = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(line, widths, self._numbers, strict=True))
            return "  ".join(padded).rstrip()

        head = [self.caption] if self.caption else []
        return "\n".join([*head, text(self.columns), "-" * (sum(widths) + 2 * len(widths) - 2), *map(text, self.cells)])

    def _repr_html_(self) -> str:
        def line(cells: list[str], tag: str) -> str:
            aligned = (
                ("right" if n else "left", escape(_unbroken(c))) for c, n in zip(cells, self._numbers, strict=True)
            )
            return "<tr>" + "".join(f"<{tag} style='text-align:{side}'>{c}</{tag}>" for side, c in aligned) + "</tr>"

        caption = f"<caption style='text-align:left;caption-side:top'>{escape(self.caption)}</caption>"
        body = "".join(line(cells, "td") for cells in self.cells)
        head = line(self.columns, "th")
        return f"<table>{caption if self.caption else ''}<thead>{head}</thead><tbody>{body}</tbody></table>"


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unbroken(cell: str) -> str:
    """With spaces at which a browser does not break the line inside an interval, and none between it and its number."""
    return re.sub(r"(?:\S+ )?\[[^\[\]]*, [^\[\]]*\]", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), cell)


def _shown(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return " ".join(str(value).split())
