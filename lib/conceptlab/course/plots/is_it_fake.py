"""Figures of notebook 11, from plain arrays: the claim alone, and the claim beside its control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ...core import ConceptLabError
from .shared import Estimate
from .style import COLORS, finish, new_figure, plain


def dots(
    rows: Mapping[str, Estimate], title: str, x: str, controls: Sequence[str] = (), reference: float | None = None
) -> Figure:
    """One dot with its interval a row; the rows named in `controls` in grey, `reference` as a dashed line.

    Raises ConceptLabError where there is nothing to draw or a control has no row.
    """
    if not rows or not set(controls) <= set(rows):
        raise ConceptLabError("Give at least one row, and name as controls only rows that there are.")
    fig, ax = new_figure(width=7.2, height=1.0 + 0.3 * len(rows))
    for at, (name, (value, low, high, *_)) in enumerate(rows.items()):
        color = COLORS["control" if name in controls else "target"]
        ax.plot([low, high], [at, at], color=color, lw=2, solid_capstyle="round")
        ax.plot([value], [at], "s" if name in controls else "o", ms=6, color=color)
    if reference is not None:
        ax.axvline(reference, color=COLORS["ink"], lw=0.9, ls="--")
    ax.set_yticks(range(len(rows)), [plain(name) for name in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    finish(ax, "", x)
    fig.suptitle(plain(title), x=0.01, ha="left", fontweight="bold", fontsize=11)  # the labels leave little room
    return fig


def two_histograms(scores: Mapping[str, np.ndarray], title: str, x: str, controls: Sequence[str] = ()) -> Figure:
    """Outlines of histograms on one axis, each an equal area; the ones named in `controls` in grey."""
    fig, ax = new_figure(width=7.2, height=2.3)
    everything = np.concatenate([np.asarray(v) for v in scores.values()])
    low, high = np.quantile(everything, [0.001, 0.999]).tolist()
    edges = np.linspace(low, high, 45).tolist()
    styles = iter(("-", "--", ":"))
    for name, values in scores.items():
        color = COLORS["control" if name in controls else "target"]
        ax.hist(values, edges, density=True, histtype="step", lw=1.8, color=color, ls=next(styles), label=plain(name))
    ax.set_yticks([])
    finish(ax, title, x, "share of lists", True)
    return fig
