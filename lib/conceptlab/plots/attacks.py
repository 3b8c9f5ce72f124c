"""Figures of notebook 05: recovery against strength, and recovered shares side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..evaluation.statistics import Interval
from .style import COLORS, finish, new_figure

# one look per arm, whatever the panel
_ARMS = (("target", "o", "-"), ("control", "s", "--"), ("ink", "^", ":"), ("accent", "D", "-."))


def recovery_curves(
    curves: Mapping[str, Mapping[int, Interval]],
    references: Mapping[str, float],
    title: str,
    y: str,
    ax: Axes | None = None,
    legend: bool = True,
) -> Figure:
    """One line per arm against optimisation steps, its 95 % interval as a bar; horizontal lines for references.

    `curves`: arm -> {steps: interval}; `references`: name -> level (for example the original model).
    """
    ax = ax or new_figure(width=8, height=3.8)[1]
    for (name, curve), (color, marker, line) in zip(curves.items(), _ARMS, strict=False):
        steps = sorted(curve)
        shift = 0.12 * (list(curves).index(name) - (len(curves) - 1) / 2)  # intervals side by side
        values = [curve[s].value for s in steps]
        error = [[curve[s].value - curve[s].low for s in steps], [curve[s].high - curve[s].value for s in steps]]
        ax.errorbar(
            [s + shift for s in steps], values, error, label=name, color=COLORS[color], marker=marker, linestyle=line,
            capsize=2, elinewidth=1, markersize=5,
        )  # fmt: skip
    for name, level in references.items():
        ax.axhline(level, color=COLORS["ink"], linewidth=0.8, zorder=0, label=name)
    finish(ax, title, "optimisation steps of the attacker", y)
    ax.set_xticks(sorted({s for curve in curves.values() for s in curve}))
    if legend:
        ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    return ax.figure


def share_bars(
    shares: Mapping[str, Interval],
    title: str,
    controls: Sequence[str] = (),
    ax: Axes | None = None,
    names_shown: bool = True,
) -> Figure:
    """Recovered share of each attack with its interval, controls in grey; 0 is erased, 100 the original model."""
    ax = ax or new_figure(width=8, height=1.3 + 0.4 * len(shares))[1]
    names = list(shares)[::-1]
    for row, name in enumerate(names):
        share, color = shares[name], COLORS["control" if name in controls else "target"]
        ax.plot([100 * share.low, 100 * share.high], [row, row], color=color, linewidth=3, alpha=0.5)
        ax.plot(100 * share.value, row, "o", color=color, markersize=7)
        ax.annotate(
            f"{100 * share.value:.0f} %", (100 * share.value, row), xytext=(0, 7), textcoords="offset points",
            fontsize=8, ha="center",
        )  # fmt: skip
    for level in (0, 100):
        ax.axvline(level, color=COLORS["ink"], linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(names)), names if names_shown else [""] * len(names))
    ax.set_ylim(-0.6, len(names) - 0.3)
    finish(ax, title, "recovered share (%): 0 = erased, 100 = original")
    return ax.figure
