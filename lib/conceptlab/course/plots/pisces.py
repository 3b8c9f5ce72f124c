"""Figures of notebook 04, from plain arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from .style import COLORS, finish, new_figure, plain


def plot_grid(
    taus: Sequence[float], mus: Sequence[float], effects: np.ndarray, labels: Sequence[str], title: str
) -> Figure:
    """Heat maps, one per set of questions: effects `[taus, mus, sets]` in nats, one colour scale for all."""
    fig, axes = new_figure(
        1, effects.shape[2], width=min(3.9 * effects.shape[2], 12.5), height=3.2, sharey=True, squeeze=False
    )
    low = min(float(effects.min()), -0.1)
    for i, (ax, label) in enumerate(zip(axes[0], labels, strict=True)):
        image = ax.imshow(effects[..., i], cmap="magma", vmin=low, vmax=0, aspect="auto")
        for r, c in np.ndindex(effects.shape[:2]):
            value = effects[r, c, i]
            ax.text(c, r, f"{value:.1f}", ha="center", va="center", color="white" if value < low / 2 else "black")
        ax.set_xticks(range(len(mus)), mus)
        ax.set_yticks(range(len(taus)), taus)
        ax.grid(False)
        finish(ax, label, "mu (strength)", "tau (rows must exceed it)" if i == 0 else "")
    fig.colorbar(image, ax=axes, label="change of gold log-prob. (nats)")
    fig.suptitle(plain(title), x=0.01, ha="left", fontweight="bold", fontsize=11)
    return fig


def plot_reach(
    reach: np.ndarray, effects: np.ndarray, names: Sequence[str], kept: Sequence[bool], title: str
) -> Figure:
    """Effect of single edits on the target `[n]` (nats) against their reach `[n]`; kept ones are filled and named."""
    fig, ax = new_figure(width=7, height=3.6)
    for on, face in ((True, COLORS["target"]), (False, "white")):
        chosen = np.asarray(kept) == on
        label = "kept by the causal filter" if on else "dropped"
        ax.plot(reach[chosen], effects[chosen], "o", ms=7, color=COLORS["target"], mfc=face, label=label)
    for x, y, name, on in zip(reach, effects, names, kept, strict=True):
        if not on:  # those that do nothing lie on each other
            continue
        ax.annotate(plain(name), (x, y), xytext=(6, 3), textcoords="offset points", fontsize=7, color=COLORS["ink"])
    ax.axhline(0, color=COLORS["ink"], lw=0.8)
    finish(ax, title, "reach: written on the concept over written elsewhere", "change of gold log-prob. (nats)", True)
    return fig


METHOD_STYLE = {  # method -> label, colour, marker
    "pisces": ("PISCES", COLORS["target"], "o"),
    "pisces+words": ("PISCES + words", COLORS["second"], "P"),
    "pisces+embedding": ("PISCES + embedding", COLORS["accent"], "D"),
    "pisces+words_both": ("PISCES + words, both sides", COLORS["accent"], "P"),
    "words": ("words alone", COLORS["general"], "v"),
    "words_both": ("words, both sides", COLORS["general"], "^"),
    "embedding": ("embedding alone", COLORS["second"], "s"),
    "zeroed_vectors": ("zeroed vectors", COLORS["neighbour"], "^"),
    "zeroed_vectors_matched": ("zeroed vectors, as many as PISCES takes", COLORS["neighbour"], "v"),
    "random_features": ("random features, mirrored", COLORS["control"], "x"),
    "random_words": ("random words", COLORS["control"], "+"),
    "random_words_both": ("random words, both sides", COLORS["control"], "2"),
    "other_features": ("same rows, other features", COLORS["ink"], "x"),
    "random_direction": ("same rows, random direction", COLORS["ink"], "+"),
    "random_norm": ("random rows", COLORS["control"], "1"),
}


def plot_plane(points: dict[str, np.ndarray], title: str, live: tuple[float, float] | None = None) -> Figure:
    """Efficacy against specificity: per method its concepts `[n, 2]` (small) and their mean (large).

    `live`: a star, the cell that was computed again.
    """
    fig, ax = new_figure(width=9, height=4.2)
    for method, found in points.items():
        label, color, marker = METHOD_STYLE[method]
        ax.plot(*found.T, marker, ms=4, color=color, alpha=0.4, ls="none")
        ax.plot(*found.mean(0), marker, ms=11, color=color, mew=2.5 if marker in "x+" else 1, ls="none", label=label)
    if live is not None:
        ax.plot(*live, "*", ms=15, color=COLORS["ink"], mfc="none", ls="none", label="computed here")
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(-0.03, 1.05)
    finish(ax, title, "efficacy (1: the target is guessed)", "specificity (1: all else as before)")
    if points or live is not None:
        ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def plot_concepts(names: Sequence[str], values: dict[str, np.ndarray], title: str, y: str) -> Figure:
    """One group of bars per concept, one bar per method: `values[method]` is `[concepts, 3]` (value, low, high)."""
    fig, ax = new_figure(width=10.5, height=3.8)
    width = 0.8 / max(len(values), 1)
    for i, (method, found) in enumerate(values.items()):
        at = np.arange(len(names)) + (i - (len(values) - 1) / 2) * width
        middle, low, high = found.T
        error = np.stack([middle - low, high - middle]).clip(0)
        label, color, _ = METHOD_STYLE[method]
        ax.bar(at, middle, 0.9 * width, color=color, label=label)
        ax.errorbar(at, middle, error, fmt="none", ecolor=COLORS["ink"], lw=0.8)
    ax.set_xticks(range(len(names)), [plain(n.replace("_", " ")) for n in names], rotation=35, ha="right", fontsize=9)
    ax.grid(False, axis="x")
    ax.set_ylim(0, 1.05)
    finish(ax, title, "", y)
    fig.legend(
        *ax.get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside lower center", ncols=len(values)
    )
    return fig


def plot_card(names: Sequence[str], cards: dict[str, np.ndarray], title: str) -> Figure:
    """Bars of the card: for each edit the axes in `names`, `cards[edit]` is `[axes, 3]` (value, low, high)."""
    fig, ax = new_figure(width=8, height=3.4)
    colors = [COLORS[c] for c in ("target", "control", "accent", "second", "neighbour")]
    width = 0.8 / len(cards)
    for i, (edit, found) in enumerate(cards.items()):
        at = np.arange(len(names)) + (i - (len(cards) - 1) / 2) * width
        middle, low, high = found.T
        ax.bar(at, middle, 0.9 * width, color=colors[i % len(colors)], label=plain(edit))
        ax.errorbar(at, middle, np.stack([middle - low, high - middle]).clip(0), fmt="none", ecolor=COLORS["ink"], lw=1)
    ax.set_xticks(range(len(names)), [plain(name) for name in names])
    ax.set_ylim(0, 1.08)
    finish(ax, title, "", "share (95 % interval)")
    fig.legend(*ax.get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside lower center", ncols=len(cards))
    return fig
