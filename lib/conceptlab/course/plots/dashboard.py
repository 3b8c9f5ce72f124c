"""One feature at a glance: where it fires, how strongly, how often, and which tokens it writes."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .sae import Context, draw_contexts
from .style import COLORS, finish, new_figure, plain, printable


def feature_dashboard(
    title: str,
    contexts: Sequence[Context],
    activations: np.ndarray,
    rate: float,
    rates: np.ndarray,
    tokens: Sequence[tuple[str, float]],
) -> Figure:
    """Top contexts above; below: histogram of the activations, density among all features, tokens written.

    `activations`: the non-zero values of the feature; `rate`: share of tokens it fires on; `rates`: that of every
    feature; `tokens`: word and logit change per unit of activation, strongest first, suppressed ones last.
    """
    top = 0.22 * len(contexts) + 0.5
    fig, old = new_figure(width=9.6, height=top + 2.5)
    old.remove()
    grid = fig.add_gridspec(2, 3, height_ratios=[top, 2.5])
    with plt.rc_context({"axes.grid": False}):
        ax = fig.add_subplot(grid[0, :])
    draw_contexts(ax, {"": contexts})
    _activations(fig.add_subplot(grid[1, 0]), activations)
    _density(fig.add_subplot(grid[1, 1]), rate, rates)
    _tokens(fig.add_subplot(grid[1, 2]), tokens)
    fig.suptitle(plain(title), x=0.01, ha="left", fontweight="bold", fontsize=11)
    return fig


def _activations(ax: Axes, values: np.ndarray) -> None:
    ax.hist(values, bins=30, color=COLORS["target"])
    ax.set_yscale("log")
    finish(ax, "", "activation, where it fires", "tokens")
    _bare(ax)


def _density(ax: Axes, rate: float, rates: np.ndarray) -> None:
    live = np.asarray(rates)[np.asarray(rates) > 0]
    ax.hist(np.log10(live), bins=30, color=COLORS["control"])
    ax.axvline(np.log10(max(rate, 1e-9)), color=COLORS["target"], lw=2)
    finish(ax, "", "log10 firing rate (line: this feature)", "features")
    _bare(ax)


def _tokens(ax: Axes, tokens: Sequence[tuple[str, float]]) -> None:
    words, effects = [printable(w.strip()) or "·" for w, _ in tokens], np.array([e for _, e in tokens])
    colours = [COLORS["target" if e > 0 else "neighbour"] for e in effects]
    y = np.arange(len(words))
    ax.barh(y, effects, color=colours)
    ax.set_yticks(y, [plain(w) for w in words], fontsize=8)
    ax.invert_yaxis()
    finish(ax, "", "logit change per unit of activation", "")
    _bare(ax)


def _bare(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.xaxis.label.set_fontsize(8.5)
    ax.yaxis.label.set_fontsize(8.5)
    ax.tick_params(labelsize=8)
