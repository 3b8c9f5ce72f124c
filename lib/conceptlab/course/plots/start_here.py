"""Figures of notebook 00: norms along the residual stream, the logit lens, neurons, the attention sink, scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ...core import Interval
from .style import COLORS, figure_of, finish, new_figure, plain, printable


def norm_growth(norms: dict[str, dict[str, Float[Tensor, " layers"]]], title: str) -> Figure:
    """One panel per model; in it the norm per layer of each named part (logarithmic)."""
    fig, axes = new_figure(1, len(norms), width=9, height=3.2, squeeze=False)
    colors = dict(zip(next(iter(norms.values())), ("ink", "neighbour", "target"), strict=False))
    for ax, (model, parts) in zip(axes[0], norms.items(), strict=True):
        for name, values in parts.items():
            ax.plot(range(len(values)), values, marker="o", ms=3, color=COLORS[colors[name]], label=plain(name))
        _log_norms(ax, model, "layer", legend=ax is axes[0][0])
    return _titled(fig, title)


def lens_grid(
    words: Sequence[Sequence[str]], probs: Float[Tensor, "layers pos"], layers: Sequence[int], prompt: Sequence[str],
    title: str,
) -> Figure:  # fmt: skip
    """Heat map of the lens: in each cell the top token of that layer and position, coloured by its probability."""
    fig, ax = new_figure(width=9, height=0.28 * len(layers) + 1.1)
    image = ax.imshow(probs, aspect="auto", cmap="YlGnBu", vmin=0, vmax=1, origin="lower")
    for i, row in enumerate(words):
        for j, word in enumerate(row):
            dark = float(probs[i, j]) > 0.55
            ax.text(j, i, _short(word), ha="center", va="center", fontsize=8, color="white" if dark else "black")
    ax.set_xticks(range(len(prompt)), [_short(p) for p in prompt])
    ax.set_yticks(range(len(layers)), [str(layer) for layer in layers])
    ax.grid(False)
    fig.colorbar(image, ax=ax, label="probability of the top token", pad=0.01)
    finish(ax, title, "token that was read last", "after layer")
    return fig


def _short(word: str) -> str:
    """A token as printable ASCII or Latin text (the course's fonts have no other scripts), at most 11 characters."""
    word = printable(word.replace("\n", "\\n").strip(" ")) or "(space)"
    return plain(word if len(word) <= 11 else word[:10] + "\u2026")


def rank_curves(
    ranks: dict[str, dict[str, Int[Tensor, "layers prompts"]]], title: str, d_vocab: dict[str, int]
) -> Figure:
    """One panel per model: median rank of each group of tokens by layer, the middle half of the prompts shaded."""
    fig, axes = new_figure(1, len(ranks), width=9, height=3.4, squeeze=False, sharey=True)
    names = list(next(iter(ranks.values())))
    colors = dict(zip(names, ("target", "control", "neighbour"), strict=False))
    for ax, (model, groups) in zip(axes[0], ranks.items(), strict=True):
        for name, values in groups.items():
            low, middle, high = np.quantile(values.numpy() + 1, (0.25, 0.5, 0.75), axis=1)
            ax.fill_between(range(len(middle)), low, high, color=COLORS[colors[name]], alpha=0.2, lw=0)
            ax.plot(range(len(middle)), middle, color=COLORS[colors[name]], label=plain(name))
        ax.axvline(len(values) * 2 / 3 - 0.5, color=COLORS["ink"], lw=0.8, ls=":")
        ax.set_yscale("log")
        finish(ax, f"{model} ({d_vocab[model]:,} tokens)", "after layer", "rank of the token (1 = top)")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0][0].invert_yaxis()  # shared: once turns both
    axes[0][0].legend(frameon=False, fontsize=9, loc="upper left")
    axes[0][-1].set_ylabel("")
    return _titled(fig, title)


def partial_sums(counts: Sequence[int], errors: dict[str, dict[str, Float[Tensor, " counts"]]], title: str) -> Figure:
    """One panel per model: what is missing of the MLP's contribution when only some neurons are summed."""
    fig, axes = new_figure(1, len(errors), width=9, height=3.0, squeeze=False, sharey=True)
    for ax, (model, lines) in zip(axes[0], errors.items(), strict=True):
        for (name, values), color in zip(lines.items(), ("target", "control", "neighbour"), strict=False):
            ax.plot(counts, values, marker="o", ms=4, color=COLORS[color], label=plain(name))
        ax.set_xscale("log")
        finish(ax, model, "neurons in the sum (log scale)", "missing, share of the norm", legend=ax is axes[0][0])
    axes[0][0].set_ylim(0, None)
    axes[0][-1].set_ylabel("")
    return _titled(fig, title)


def sink_norms(norms: dict[str, Float[Tensor, "layers pos"]], title: str) -> Figure:
    """One panel per model: norm of the residual stream at each position, a line per position, the first in colour."""
    fig, axes = new_figure(1, len(norms), width=9, height=3.0, squeeze=False)
    for ax, (model, values) in zip(axes[0], norms.items(), strict=True):
        for pos in range(values.shape[1] - 1, -1, -1):
            color, label = (
                ("target", "position 0") if pos == 0 else ("control", "positions 1, 2, ..." if pos == 1 else "")
            )
            ax.plot(values[:, pos], color=COLORS[color], lw=2 if pos == 0 else 0.8, label=label)
        _log_norms(ax, model, "after layer", legend=ax is axes[0][0])
    return _titled(fig, title)


def score_bars(
    groups: dict[str, dict[str, Interval]], title: str, x: str, chance: float | None = None,
    guessed: Sequence[str] | None = None, unit: float = 1.0,
) -> Figure:  # fmt: skip
    """Horizontal bars with 95 % intervals and their values: per measure (outer key) one bar per model (inner key).

    The line of `chance` is drawn beside the measures of `guessed` only (None: all).
    """
    models = list(next(iter(groups.values())))
    height = 0.8 / len(models)
    fig, ax = new_figure(width=9, height=0.5 * len(groups) + 1.3)
    for k, (model, color) in enumerate(zip(models, ("neighbour", "second", "general"), strict=False)):
        found = [unit * torch.tensor(group[model][:3]) for group in groups.values()]
        centres = [i + (k - (len(models) - 1) / 2) * height for i in range(len(groups))]
        ax.barh(centres, [float(f[0]) for f in found], height * 0.9, color=COLORS[color], label=plain(model))
        for centre, (value, low, high) in zip(centres, found, strict=True):
            ax.plot([low, high], [centre, centre], color=COLORS["ink"], lw=1.2)
            ax.text(high + 0.01 * unit, centre, f"{value:.{0 if unit > 1 else 2}f}", va="center", fontsize=8)
    if chance is not None:
        at = np.array([i for i, group in enumerate(groups) if guessed is None or group in guessed])
        ax.vlines(at * 0 + chance * unit, at - 0.5, at + 0.5, color=COLORS["control"], ls="--", label="a guess")
    ax.set_yticks(range(len(groups)), [plain(group) for group in groups])
    ax.invert_yaxis()
    ax.grid(False, axis="y")
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure_of(finish(ax, title, x))


def _log_norms(ax: Axes, model: str, x: str, legend: bool) -> None:
    """What the panels of norms over layers share."""
    ax.set_yscale("log")
    finish(ax, model, x, "norm (log scale)", legend=legend)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _titled(fig: Figure, title: str) -> Figure:
    fig.suptitle(plain(title), x=0.01, ha="left", fontsize=11, fontweight="bold")
    return fig
