"""Figures of notebook 08, from plain arrays and rows of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from .diagrams import Diagram
from .style import COLORS, finish, new_figure, plain

MASKED_SETS = {  # method -> label, colour, marker
    "own": ("the concept's vectors", COLORS["target"], "o-"),
    "equal": ("equally active vectors", COLORS["neighbour"], "s-"),
    "random": ("random vectors", COLORS["control"], "^--"),
    "permuted": ("permuted labels", COLORS["accent"], "D"),
    "others": ("the concept's vectors, on other concepts", COLORS["general"], "v:"),
}


def diagram() -> Diagram:
    """How vectors are ranked, masked and compared."""
    alt = (
        "Questions about a concept and questions about other concepts pass one MLP layer. For every neuron the mean "
        "absolute coefficient on both lists is compared. The value vectors with the largest difference are masked. "
        "Then questions of the concept and of the others are asked again, and the costs are compared with masking "
        "equally active vectors."
    )
    d = Diagram(900, 310, alt)
    d.box(10, 30, 150, 50, "questions about\ngolf", "target")
    d.box(10, 150, 150, 50, "questions about\nother concepts", "neighbour")
    d.box(225, 85, 130, 60, "MLP layer\nm = coefficients")
    d.arrow((160, 55), (225, 100), "target").arrow((160, 175), (225, 130), "neighbour")
    d.box(415, 30, 170, 50, "mean |m| of neuron j\non golf", "target")
    d.box(415, 150, 170, 50, "mean |m| of neuron j\non the others", "neighbour")
    d.arrow((355, 100), (415, 55), "target").arrow((355, 130), (415, 175), "neighbour")
    d.label(500, 121, "difference = score of j", anchor="middle")
    d.box(650, 85, 240, 60, "highest scores:\ntheir m is set to 0")
    d.arrow((585, 55), (650, 100)).arrow((585, 175), (650, 130))
    d.box(410, 240, 230, 50, "ask again: what does golf lose,\nwhat do the others lose?", "target")
    d.box(660, 240, 230, 50, "the same with vectors that are\nas active, but not in the set", "neighbour")
    d.arrow((710, 145), (570, 240)).arrow((790, 145), (790, 240), dashed=True)
    return d


def plot_costs(curves: Mapping[str, Mapping[str, np.ndarray | Sequence[Sequence[float]]]], title: str) -> Figure:
    """Cost against share masked, one panel per model: `curves[panel][method]`, rows `[share, value, low, high]`."""
    fig, axes = new_figure(1, len(curves), width=4.6 * len(curves), height=3.6, sharey=True, squeeze=False)
    for ax, (panel, found) in zip(axes[0], curves.items(), strict=True):
        for method, rows in found.items():
            label, color, marker = MASKED_SETS[method]
            share, value, low, high = np.asarray(rows, dtype=float).T
            error = np.abs(np.stack([value - low, high - value]))
            ax.errorbar(100 * share, value, error, fmt=marker, color=color, label=label, ms=5, capsize=2)
        ax.set_xscale("log")
        ax.axhline(0, color=COLORS["ink"], lw=0.8)
        finish(ax, panel, "share of value vectors masked (%, log scale)")
    axes[0, 0].set_ylabel("cost (nats per token)")
    shown = {label: h for ax in axes[0] for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    fig.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    fig.suptitle(plain(title), x=0.01, ha="left", fontweight="bold", fontsize=11)
    return fig


def plot_contrasts(names: Sequence[str], found: Mapping[str, np.ndarray], title: str, x: str) -> Figure:
    """One row per concept, one interval per model: `found[model]` `[concepts, 3]`, NaN where there is none."""
    fig, ax = new_figure(width=8, height=1.1 + 0.3 * len(names))
    for i, (model, rows) in enumerate(found.items()):
        value, low, high = np.asarray(rows, dtype=float).T
        at = np.arange(len(names)) + 0.25 * (i - (len(found) - 1) / 2)
        color = COLORS["general" if i == 0 else "accent"]
        error = np.abs(np.nan_to_num(np.stack([value - low, high - value])))
        ax.errorbar(value, at, xerr=error, fmt="os"[i % 2], ms=5, color=color, label=plain(model))
    ax.axvline(0, color=COLORS["ink"], lw=0.8)
    ax.set_yticks(range(len(names)), list(map(plain, names)))
    ax.invert_yaxis()
    finish(ax, title, x)
    ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


def plot_overlap(shares: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Share of the row's set that is in the column's set, `[n, n]`; the diagonal (1) is left out of the colours."""
    fig, ax = new_figure(width=7.4, height=6.2)
    shown = np.array(shares, dtype=float)
    np.fill_diagonal(shown, np.nan)
    image = ax.imshow(shown, vmin=0)
    ax.set_xticks(range(len(names)), list(map(plain, names)), rotation=60, ha="right", fontsize=8)
    ax.set_yticks(range(len(names)), list(map(plain, names)), fontsize=8)
    ax.grid(False)
    if len(shown) <= 8:
        for (i, j), value in np.ndenumerate(shown):
            if i != j:
                dark = value < 0.6 * np.nanmax(shown)
                ax.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if dark else "black", fontsize=9)
    fig.colorbar(image, ax=ax, shrink=0.8, label="shared vectors (share of the set)")
    finish(ax, title)
    return fig


def plot_layers(counts: Mapping[str, np.ndarray], title: str) -> Figure:
    """Where the chosen vectors lie: mean number per layer, one line per model, layers as a share of the depth."""
    fig, ax = new_figure(width=8, height=2.8)
    for (model, rows), color in zip(counts.items(), ("target", "neighbour", "general"), strict=False):
        depth = (np.arange(len(rows)) + 1) / len(rows)
        ax.plot(depth, rows / max(rows.sum(), 1e-9), "o-", ms=4, color=COLORS[color], label=plain(model))
    finish(ax, title, "depth (layer / number of layers)", "share of the set", True)
    return fig
