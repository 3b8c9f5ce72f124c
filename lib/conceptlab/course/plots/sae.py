"""Figures of notebook 02, and heat maps of tokens for any notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ...core import Interval
from .style import COLORS, finish, new_figure, plain, printable

Context = tuple[Sequence[str], Sequence[float], str]  # tokens, activation of each, note at the right end


_WIDTH = 92  # characters of a heat map's line


_LINES = ("target", "neighbour", "general", "second", "accent")  # colours of up to five dictionaries


def token_heatmap(blocks: Mapping[str, Sequence[Context]], title: str = "", colour: str = "target") -> Figure:
    """One line of text per context, each token shaded by its activation; scaled to the largest value of its block.

    `blocks`: heading -> contexts. Long contexts lose tokens at their beginning.
    """
    n_lines = sum(len(block) for block in blocks.values()) + 1.4 * len(blocks)
    fig, ax = new_figure(width=9.6, height=0.22 * n_lines + (0.45 if title else 0.15))
    draw_contexts(ax, blocks, colour)
    if title:
        ax.set_title(plain(title), loc="left", fontweight="bold", fontsize=11)
    return fig


def draw_contexts(ax: Axes, blocks: Mapping[str, Sequence[Context]], colour: str = "target") -> None:
    """The lines of `token_heatmap` in given axes; an empty heading takes no line."""
    shades = mpl.colors.LinearSegmentedColormap.from_list("shade", ["white", COLORS[colour]])
    y = 0.0
    for heading, contexts in blocks.items():
        if heading:
            y += 1.0
            ax.text(0, y, plain(heading), fontsize=9, fontweight="bold", va="center")
        largest = max(max(values) for _, values, _ in contexts)
        for tokens, values, note in contexts:
            y += 1.0
            _line(ax, y, tokens, np.clip(np.asarray(values) / max(largest, 1e-9), 0, 1), note, shades)
        y += 0.4
    ax.set(xlim=(0, _WIDTH + 24), ylim=(y + 0.5, 0.2))
    ax.set_axis_off()


def _line(ax: Axes, y: float, tokens: Sequence[str], shares: np.ndarray, note: str, shades) -> None:
    cells = [(printable(t) or "·") for t in tokens]
    while sum(map(len, cells)) > _WIDTH and len(cells) > 1:
        cells, shares = cells[1:], shares[1:]
    x = _WIDTH - sum(map(len, cells))  # aligned at the right, where the strongest token stands
    for cell, share in zip(cells, shares, strict=True):
        if share > 0.02:
            ax.add_patch(Rectangle((x, y - 0.45), len(cell), 0.9, color=shades(0.85 * share), lw=0))
        for i, character in enumerate(cell):  # one by one: the width of a font does not matter then
            ax.text(x + i + 0.5, y, plain(character), fontsize=7, family="monospace", ha="center", va="center")
        x += len(cell)
    ax.text(_WIDTH + 1, y, plain(note), fontsize=7.5, color="#666666", va="center")


def sparsity_frontier(
    points: Mapping[str, Mapping[str, Sequence[float]]], measures: Mapping[str, str], title: str
) -> Figure:
    """One line per architecture over L0 (logarithmic), one panel per measure.

    `points`: architecture -> {"l0": values, measure: values, ...}; `measures`: measure -> label of its axis.
    """
    fig, axes = new_figure(1, len(measures), width=max(7.6, 4.3 * len(measures) + 1.2), height=3.5, squeeze=False)
    for ax, (measure, label) in zip(axes[0], measures.items(), strict=True):
        for (name, values), colour, marker in zip(points.items(), _LINES, "osD^v", strict=False):
            order = np.argsort(values["l0"])
            x, y = (np.asarray(values[m], dtype=float)[order] for m in ("l0", measure))
            ax.plot(x, y, marker + "-", ms=5, lw=1.2, color=COLORS[colour], label=plain(name))
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
        finish(ax, "", "L0: active features per token", label)
    fig.suptitle(plain(title), x=0.01, ha="left", fontweight="bold", fontsize=11)
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside right center", frameon=False, fontsize=9)
    return fig


def sorted_cosines(series: Mapping[str, np.ndarray], title: str, x: str, y: str, least: float | None = None) -> Figure:
    """Cosines of each series from the largest to the smallest, over the share of features; a rule at `least`."""
    fig, ax = new_figure(width=7.6, height=3.2)
    for (name, values), colour in zip(series.items(), ("target", "neighbour", "general", "control"), strict=False):
        ordered = np.sort(np.asarray(values))[::-1]
        ax.plot(np.arange(1, len(ordered) + 1) / len(ordered), ordered, color=COLORS[colour], label=plain(name))
    if least is not None:
        ax.axhline(least, color=COLORS["ink"], ls="--", lw=1)
    ax.set(xlim=(0, 1), ylim=(min(0.0, *(float(np.min(v)) for v in series.values())), 1.02))
    finish(ax, title, x, y)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9)
    return fig


def variance_against_k(ks: Sequence[int], series: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Held-out share of variance explained by k directions per token, one line per kind of direction."""
    fig, ax = new_figure(width=7, height=3.4)
    colours = ("target", "neighbour", "general", "control", "accent")
    for (name, values), colour in zip(series.items(), colours, strict=False):
        ax.plot(ks, values, "o-", ms=4, color=COLORS[colour], label=plain(name))
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(ks), [str(k) for k in ks])
    ax.set_ylim(0, 1)
    finish(ax, title, "directions used per token (k)", "held-out variance explained")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9)
    return fig


def class_areas(
    names: Sequence[str], series: Mapping[str, Sequence[Interval]], title: str, split_after: int | None = None
) -> Figure:
    """One line per class, one dot with its interval per kind of direction; a rule after line `split_after`."""
    fig, ax = new_figure(width=8, height=0.34 * len(names) + 1.2)
    y = np.arange(len(names))
    offsets = np.linspace(-0.24, 0.24, len(series))
    colours = ("target", "neighbour", "control", "second")
    for (kind, found), colour, shift in zip(series.items(), colours, offsets, strict=False):
        values = np.array([i.value for i in found])
        bars = np.abs(np.array([[i.value - i.low, i.high - i.value] for i in found]).T)
        ax.errorbar(values, y + shift, xerr=bars, fmt="o", ms=4, lw=1, color=COLORS[colour], label=plain(kind))
    if split_after is not None:
        ax.axhline(split_after - 0.5, color=COLORS["ink"], lw=0.8)
    ax.axvline(0.5, color=COLORS["ink"], ls="--", lw=1)
    ax.set_yticks(y, [plain(name) for name in names])
    ax.invert_yaxis()
    finish(ax, "", "AUROC on texts not used for choosing (0.5: chance)", "")
    fig.suptitle(plain(title), x=0.01, ha="left", fontweight="bold", fontsize=11)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9)
    return fig


def training_curves(curves: Mapping[str, Sequence[float]], title: str, y: str = "loss") -> Figure:
    """One line per run over its steps, each a running median over nine steps; the steps themselves pale behind it.

    The axis ends at twice the first value: a run that explodes leaves the picture, the others stay readable.
    """
    fig, ax = new_figure(width=7.6, height=3.2)
    for (name, values), colour in zip(curves.items(), _LINES, strict=False):
        raw = np.asarray(values, dtype=float)
        ax.plot(raw, color=COLORS[colour], lw=0.6, alpha=0.35)
        if len(raw) >= 9:
            middle = np.median(np.lib.stride_tricks.sliding_window_view(raw, 9), axis=1)
            ax.plot(np.arange(4, len(raw) - 4), middle, color=COLORS[colour])
        ax.plot([], [], color=COLORS[colour], label=plain(name))
    low = min(min(values) for values in curves.values())
    ax.set_ylim(0.9 * low, 2 * max(values[0] for values in curves.values()))
    finish(ax, title, "step", y)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9)
    return fig


def width_scaling(errors: Mapping[int, float], title: str) -> tuple[Figure, float]:
    """Unexplained share of the variance against width, both logarithmic, with the straight line that fits best.

    Returns the figure and the line's slope: the exponent of a power law, if it is one.
    """
    widths, left = np.array(list(errors)), np.array(list(errors.values()))
    slope, offset = np.polyfit(np.log(widths), np.log(left), 1)
    fig, ax = new_figure(width=6.4, height=3.2)
    ax.plot(widths, np.exp(offset) * widths**slope, "--", lw=1, color=COLORS["ink"], label=f"power {slope:.2f}")
    ax.plot(widths, left, "o", color=COLORS["target"], label="TopK dictionaries")
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(widths, [str(w) for w in widths])
    ax.set_yticks(left, [f"{v:.2f}" for v in left])
    ax.minorticks_off()
    finish(ax, title, "features in the dictionary", "variance left unexplained", legend=True)
    return fig, float(slope)
