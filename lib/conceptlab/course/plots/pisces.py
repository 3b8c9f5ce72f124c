"""Figures of notebook 04, from plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...core import ConceptLabError, Interval
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
    reach: np.ndarray,
    effects: np.ndarray,
    names: Sequence[str],
    kept: Sequence[bool],
    title: str,
    x: str = "reach: written on the concept over written elsewhere",
) -> Figure:
    """Effect of single edits on the target `[n]` (nats) against a number of each `[n]`; kept ones are filled and named.

    `x`: what the number is.
    """
    fig, ax = new_figure(width=7, height=3.6)
    for on, face in ((True, COLORS["target"]), (False, "white")):
        chosen = np.asarray(kept) == on
        label = "kept by the causal filter" if on else "dropped"
        ax.plot(reach[chosen], effects[chosen], "o", ms=7, color=COLORS["target"], mfc=face, label=label)
    for place, y, name, on in zip(reach, effects, names, kept, strict=True):
        if not on:  # those that do nothing lie on each other
            continue
        ax.annotate(plain(name), (place, y), xytext=(6, 3), textcoords="offset points", fontsize=7, color=COLORS["ink"])
    ax.axhline(0, color=COLORS["ink"], lw=0.8)
    finish(ax, title, x, "change of gold log-prob. (nats)", True)
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
    "permuted_neurons": ("same changes, other neurons", COLORS["control"], "P"),
    "frozen_decoder": ("PISCES in a random dictionary", COLORS["second"], "d"),
    "random_direction": ("same rows, random direction", COLORS["ink"], "+"),
    "random_norm": ("random rows", COLORS["control"], "1"),
}


CONTROL_STYLE = {  # control -> colour and marker of its differences, the same in every panel
    "other_features": ("target", "o"),
    "permuted_neurons": ("neighbour", "s"),
    "random_direction": ("control", "^"),
    "frozen_decoder": ("second", "d"),
}


MOST = 6  # series in one plane: more cannot be told apart


def plot_plane(points: dict[str, np.ndarray], title: str, live: tuple[float, float] | None = None) -> Figure:
    """Efficacy against specificity: per method its concepts `[n, 2]` (small) and their mean (large); six at most.

    The first method is drawn last, on top of the others. `live`: a star, the cell that was computed again.
    """
    if len(points) > MOST:
        raise ConceptLabError(f"A plane shows {MOST} methods at most; got {len(points)}: choose those that decide.")
    fig, ax = new_figure(width=9, height=4.2)
    for i, (method, found) in enumerate(points.items()):
        label, color, marker = METHOD_STYLE[method]
        over, wide = 3 + len(points) - i, 2.5 if marker in "x+" else 1
        ax.plot(*found.T, marker, ms=4, color=color, alpha=0.4, ls="none", zorder=over)
        ax.plot(*found.mean(0), marker, ms=11, color=color, mew=wide, ls="none", label=label, zorder=over)
    if live is not None:
        ax.plot(*live, "*", ms=15, color=COLORS["ink"], mfc="none", ls="none", label="computed here", zorder=20)
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(-0.03, 1.05)
    finish(ax, title, "efficacy (1: the target is guessed)", "specificity (1: all else as before)")
    if points or live is not None:
        ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def plot_paired(
    panels: Mapping[str, Mapping[str, Mapping[str, float]]],
    means: Mapping[str, Mapping[str, Interval]],
    title: str,
    x: str,
) -> Figure:
    """Paired differences, one panel per model, one row per concept, the mean with its interval in the lowest row.

    `panels`: model -> control -> concept -> difference; `means`: model -> control -> mean. Right of 0 the method took
    more than its control. At most three controls.
    """
    fig, axes = new_figure(1, len(panels), width=4.6 * len(panels), height=4.6, sharey=False, squeeze=False)
    drawn: dict[str, Line2D] = {}
    for ax, (model, controls) in zip(axes[0], panels.items(), strict=True):
        first = next(iter(controls.values()), {})
        others = [c for found in controls.values() for c in found if c not in first]
        names = [*sorted(first, key=lambda c: first[c]), *dict.fromkeys(others)]
        for control, found in controls.items():
            color, marker = CONTROL_STYLE.get(control, ("control", "v"))
            rows = [1 + names.index(c) for c in found]
            points = ax.plot(list(found.values()), rows, marker, color=COLORS[color], ms=5, ls="none")[0]
            drawn.setdefault(f"minus {METHOD_STYLE[control][0]}", points)
            mean = means[model][control]
            shift = 0.3 * (list(controls).index(control) - (len(controls) - 1) / 2)
            error = np.nan_to_num([[mean.value - mean.low], [mean.high - mean.value]])
            ax.errorbar(
                [mean.value], [-0.4 - shift], xerr=error, fmt=marker, color=COLORS[color], ms=8, capsize=4, lw=2
            )
        ax.axvline(0, color=COLORS["ink"], lw=0.8)
        ax.axhline(0.35, color=COLORS["control"], lw=0.6)
        ax.set_yticks([-0.4, *range(1, len(names) + 1)], ["mean", *(plain(n.replace("_", " ")) for n in names)], size=9)
        ax.grid(False, axis="y")
        finish(ax, model, x)
    fig.legend(
        handles=list(drawn.values()), labels=list(drawn), frameon=False, fontsize=9, loc="outside lower center", ncols=3
    )
    fig.suptitle(plain(title), x=0.01, ha="left", fontweight="bold", fontsize=11)
    return fig


def plot_collateral(rows: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """What each edit (row) costs the known questions on each concept (column), in nats per token; empty: not asked."""
    columns = list(dict.fromkeys(c for row in rows.values() for c in row))
    values = np.array([[row.get(c, np.nan) for c in columns] for row in rows.values()], dtype=float)
    fig, ax = new_figure(width=min(3.2 + 0.62 * len(columns), 12), height=1.6 + 0.36 * len(rows))
    low = min(float(np.nanmin(values)), -1.0)
    image = ax.imshow(values, cmap="magma", vmin=low, vmax=0.0, aspect="auto")
    for r, c in np.ndindex(values.shape):
        if np.isfinite(values[r, c]) and values.size <= 80:  # a larger map is read by its colours
            dark = values[r, c] < low / 2
            ax.text(
                c, r, f"{values[r, c]:.1f}", ha="center", va="center", fontsize=8, color="white" if dark else "black"
            )
    ax.set_xticks(range(len(columns)), [plain(c.replace("_", " ")) for c in columns], rotation=35, ha="right", size=9)
    ax.set_yticks(range(len(rows)), [plain(r.replace("_", " ")) for r in rows], size=9)
    ax.grid(False)
    fig.colorbar(image, ax=ax, label="nats per token", pad=0.01)
    finish(ax, title, "questions about", "edit")
    return fig


def plot_parts(names: Sequence[str], alone: np.ndarray, within: np.ndarray, title: str) -> Figure:
    """What each feature of an edit does to the target: alone, and within the whole (the whole minus it without)."""
    fig, ax = new_figure(width=8, height=1.4 + 0.42 * len(names))
    at = np.arange(len(names))
    ax.barh(at - 0.19, alone, 0.36, color=COLORS["target"], label="this feature alone")
    ax.barh(at + 0.19, within, 0.36, color=COLORS["neighbour"], label="what it adds to the others")
    ax.set_yticks(at, list(map(plain, names)), size=9)
    ax.invert_yaxis()
    ax.axvline(0, color=COLORS["ink"], lw=0.8)
    ax.grid(False, axis="y")
    finish(ax, title, "change of gold log-probability on the target (nats)")
    ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


def plot_kinds(found: Mapping[str, Interval], title: str, x: str) -> Figure:
    """One row per kind of edit: a number with its interval; the first is the edit, the others are variants of it."""
    fig, ax = new_figure(width=8, height=1.2 + 0.34 * len(found))
    for i, value in enumerate(found.values()):
        error = np.nan_to_num([[value.value - value.low], [value.high - value.value]])
        ax.errorbar(
            [value.value], [i], xerr=error, fmt="o", ms=7, capsize=3, color=COLORS["control" if i else "target"]
        )
    ax.set_yticks(range(len(found)), list(map(plain, found)), size=9)
    ax.invert_yaxis()
    ax.axvline(0, color=COLORS["ink"], lw=0.8)
    ax.grid(False, axis="y")
    finish(ax, title, x)
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
