"""Bars to both sides of zero, with a token beside each: what rises, and what falls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import COLORS, finish, new_figure, plain, printable


def two_sided_bars(panels: Mapping[str, Sequence[tuple[str, float]]], title: str = "") -> Figure:
    """One panel per measure, its (token, value) pairs as bars from the top down; rises and falls in two colours."""
    rows = max(len(bars) for bars in panels.values())
    fig, axes = new_figure(1, len(panels), width=4.8 * len(panels), height=1.2 + 0.2 * rows, squeeze=False)
    for ax, (name, bars) in zip(axes[0], panels.items(), strict=True):
        at, values = np.arange(len(bars))[::-1], [value for _, value in bars]
        ax.barh(at, values, color=[COLORS["target" if v > 0 else "neighbour"] for v in values], height=0.75)
        ax.set_yticks(at, [plain(printable(token.strip()) or "\u00b7") for token, _ in bars], fontsize=8)
        ax.axvline(0, color=COLORS["ink"], lw=0.8)
        ax.grid(False, axis="y")
        ax.xaxis.set_major_locator(MaxNLocator(4))  # probabilities have long numbers
        finish(ax, "", name)
    fig.suptitle(plain(title), x=0.01, ha="left", fontweight="bold", fontsize=11)
    return fig
