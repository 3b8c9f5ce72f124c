"""The one number a notebook ends with: printed for the reader, kept as data for the runner."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import SupportsFloat

MIME = "application/vnd.conceptlab.headline+json"


@dataclass(frozen=True)
class Headline:
    """A measured number with its interval and its control, all in `unit`."""

    label: str  # what was measured, in words
    value: float
    low: float | None = None  # lower end of the interval (95 % unless the label says otherwise)
    high: float | None = None
    control_label: str | None = None  # what the control was, for example "random vectors"
    control: float | None = None
    unit: str = ""  # "%", "nats", ...

    def __str__(self) -> str:
        text = f"{self.label}: {self.number()}"
        return f"{text}; {self.beside()}" if self.control is not None else text

    def number(self) -> str:
        """The value with its interval, without the label."""
        interval = ""
        if self.low is not None and self.high is not None:
            interval = f" [{_format(self.low)}, {_format(self.high)}]"
        return f"{_format(self.value)}{self._suffix()}{interval}"

    def beside(self) -> str:
        """The control, and whether the value's interval holds it; "" without one."""
        if self.control is None:
            return ""
        inside = self.low is not None and self.high is not None and self.low <= self.control <= self.high
        number = f"{_format(self.control)}{self._suffix()}{', inside the interval' if inside else ''}"
        return f"{self.control_label or 'control'}: {number}"

    def map_cell(self) -> str:
        """The cell of the README's map: the number first, then what it is, then the control."""
        parts = [f"**{self.number()}**", self.label, *([f"*control:* {self.beside()}"] if self.beside() else [])]
        return re.sub(r"(?<=\d)%", " %", "<br>".join(parts))

    def _suffix(self) -> str:
        if not self.unit:
            return ""
        return self.unit if self.unit in "%x" else f" {self.unit}"


def headline(
    label: str,
    value: SupportsFloat,
    low: SupportsFloat | None = None,
    high: SupportsFloat | None = None,
    *,
    control: SupportsFloat | None = None,
    control_label: str | None = None,
    unit: str = "",
) -> None:
    """Show a notebook's headline number: one readable line, plus data that the runner collects.

    Raises ValueError if the value is not finite or lies outside its interval.
    """
    numbers = [None if x is None else float(x) for x in (value, low, high, control)]
    if not all(x is None or math.isfinite(x) for x in numbers):
        raise ValueError(f"headline({label!r}): every number must be finite, got {numbers}")
    shown, bottom, top, beside = numbers
    assert shown is not None
    if bottom is not None and top is not None and not bottom <= shown <= top:
        raise ValueError(f"headline({label!r}): {shown} lies outside [{bottom}, {top}]")
    result = Headline(label, shown, bottom, top, control_label, beside, unit)
    line = f"Headline: {result}"
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        get_ipython = None
    if get_ipython is None or get_ipython() is None:
        print(line)
    else:
        display({"text/plain": line, MIME: asdict(result)}, raw=True)


def find_headline(outputs: Iterable[dict]) -> Headline | None:
    """The last headline among a notebook's outputs, or None."""
    found = [out["data"][MIME] for out in outputs if MIME in out.get("data", {})]
    return Headline(**found[-1]) if found else None


def refresh_table(text: str, name: str, found: Headline) -> str:
    """`text`, a Markdown page, with `found` in the third column of the table row that begins with `name`."""
    row = rf"^(\| {re.escape(name)} \|[^|]*\|)[^|]*\|"
    return re.sub(row, lambda m: f"{m[1]} {found.map_cell()} |", text, flags=re.M)


def _format(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.3g}"
