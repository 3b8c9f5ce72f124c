"""Figures that more than one notebook draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ...core import ConceptLabError, Interval
from .style import COLORS, finish, new_figure, plain

Estimate = Interval | tuple[float, float, float]  # value, lower and upper end first
Look = tuple[str, str, str]  # colour, marker, line

# one look per line, whatever the panel
ARMS: tuple[Look, ...] = (("target", "o", "-"), ("control", "s", "--"), ("ink", "^", ":"), ("accent", "D", "-."))


def strength_curves(
    curves: Mapping[str, Mapping[str, Estimate]],
    title: str,
    x: str,
    y: str,
    chance: float | None = None,
    arms: Sequence[Look] = ARMS,
) -> Figure:
    """One line per model or kind over named strengths, 95 % intervals as bars, side by side; at most four lines.

    `curves`: name -> strength -> estimate; `chance`: height of the dotted line of a guess; `arms`: a look per line.
    """
    if len(curves) > len(arms):
        raise ConceptLabError(f"One panel holds {len(arms)} lines at most; got {len(curves)}.")
    fig, ax = new_figure(width=8, height=3.6)
    names = list(dict.fromkeys(s for curve in curves.values() for s in curve))
    for k, ((name, curve), (color, marker, line)) in enumerate(zip(curves.items(), arms, strict=False)):
        at = [names.index(s) + 0.08 * (k - (len(curves) - 1) / 2) for s in curve]
        middle, error = _bars(list(curve.values()))
        ax.errorbar(
            at, middle, error, label=plain(name), color=COLORS[color], marker=marker, linestyle=line, capsize=2,
            elinewidth=1, markersize=5,
        )  # fmt: skip
    if chance is not None:
        ax.axhline(chance, color=COLORS["ink"], lw=1, ls=":")
    ax.set_xticks(range(len(names)), [plain(name) for name in names])
    finish(ax, title, x, y)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


def interval_panels(
    panels: Mapping[str, Mapping[str, Sequence[Estimate]]],
    groups: Sequence[str],
    colors: Mapping[str, str],
    y: str = "",
    title: str = "",
    x: str = "",
    reference: float = 0.0,
    numbers: bool = False,
) -> Figure:
    """One panel per model or measure, one cluster of points per group, one colour per series, with intervals.

    `panels`: panel -> series -> one estimate per group; a series that a panel does not have stays empty in it.
    `reference`: height of the horizontal line (no change, or chance); `numbers`: write each value above its interval.
    """
    series = list(dict.fromkeys(label for panel in panels.values() for label in panel))
    fig, axes = new_figure(1, len(panels), width=min(4.6 * len(panels), 12), height=4.0, sharey=True, squeeze=False)
    step, drawn = 0.8 / max(len(series), 1), {}
    for ax, (name, panel) in zip(axes[0], panels.items(), strict=True):
        for label, rows in panel.items():
            at = np.arange(len(rows)) + (series.index(label) - (len(series) - 1) / 2) * step
            middle, error = _bars(rows)
            drawn[label] = ax.errorbar(
                at, middle, error, fmt="o", ms=5, lw=1.6, capsize=3, color=colors[label], label=plain(label)
            )
            for place, row in zip(at, rows, strict=True) if numbers else ():
                ax.annotate(
                    f"{row[0]:.2f}", (place, row[2]), xytext=(0, 4), textcoords="offset points", ha="center", size=8
                )
        ax.set_xticks(range(len(groups)), [plain(group) for group in groups])
        ax.set_xlim(-0.5, len(groups) - 0.5)
        ax.axhline(reference, color=COLORS["ink"], lw=0.8)
        ax.grid(axis="x", visible=False)
        ax.margins(y=0.12)
        finish(ax, name, x)
    axes[0, 0].set_ylabel(plain(y))
    fig.legend([drawn[s] for s in series], map(plain, series), loc="outside lower center", ncols=3, fontsize=9)
    fig.suptitle(plain(title), x=0.01, ha="left", fontweight="bold", fontsize=11)
    return fig


def _bars(rows: Sequence[Estimate]) -> tuple[np.ndarray, np.ndarray]:
    """Values `[n]` and the lengths of their bars `[2, n]`; no bar where there is no interval."""
    table = np.array([row[:3] for row in rows], dtype=float)
    return table[:, 0], np.nan_to_num(np.abs(table[:, 1:].T - table[:, 0]))
