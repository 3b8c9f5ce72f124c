"""Figures of notebook 01, from plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor, cat

from ...concept_vectors import NoiseStudy
from ...core import bootstrap
from .shared import interval_panels
from .style import COLORS, figure_of, finish, new_figure, plain, printable

Triple = Sequence[float]  # value, lower end, upper end

# (kind of vectors, questions asked) -> name of the series, its colour
NOISE_SERIES = {
    ("concept", "concept"): ("concept vectors, concept questions", "target"),
    ("concept", "unrelated"): ("concept vectors, unrelated questions", "general"),
    ("matched", "concept"): ("as active at answers, concept questions", "second"),
    ("matched", "unrelated"): ("as active at answers, unrelated questions", "neighbour"),
    ("random", "concept"): ("random vectors, concept questions", "control"),
}


_LINES = (COLORS["target"], COLORS["control"], COLORS["neighbour"], COLORS["second"])


def coherence_tails(panels: Mapping[str, Mapping[str, np.ndarray]], title: str = "") -> Figure:
    """One panel per score, one line per kind of vector: the share of vectors that score above x (log scale)."""
    fig, axes = new_figure(1, len(panels), width=4.6 * len(panels), sharey=True, squeeze=False)
    for ax, (name, groups) in zip(axes[0], panels.items(), strict=True):
        for (label, scores), color in zip(groups.items(), _LINES, strict=False):
            scores = np.sort(np.asarray(scores).ravel())
            share = 1 - np.arange(len(scores)) / len(scores)
            ax.plot(scores, 100 * share, color=color, label=plain(label), lw=2 if color == _LINES[0] else 1.4)
        ax.set(yscale="log", ylim=(0.01, 110))
        finish(ax, name, "coherence of the top tokens")
    axes[0, 0].set_ylabel("vectors above x (%)")
    axes[0, -1].legend(frameon=False, fontsize=9)
    fig.suptitle(plain(title), x=0.01, ha="left", fontweight="bold", fontsize=11)
    return fig


def share_by_layer(shares: Mapping[str, Sequence[Triple]], expected: float = 1.0, title: str = "") -> Figure:
    """Share (%) of vector ends above the random threshold per layer and model; `expected`: the share by chance."""
    fig, ax = new_figure(width=8, height=3.2)
    for (label, rows), color in zip(shares.items(), (COLORS["target"], COLORS["neighbour"]), strict=False):
        found = np.asarray(rows)
        depth = np.arange(len(found)) / max(len(found) - 1, 1)
        ax.fill_between(depth, found[:, 1], found[:, 2], color=color, alpha=0.2, lw=0)
        ax.plot(depth, found[:, 0], color=color, marker="o", ms=3, label=plain(label))
    ax.axhline(expected, color=COLORS["control"], ls="--", label=f"random vectors ({expected:g} %)")
    finish(ax, title, "depth (0: first layer, 1: last layer)", "coherent ends (%)", legend=True)
    return fig


def word_bars(names: Sequence[str], scores: Sequence[float], words: Sequence[Sequence[str]], title: str = "") -> Figure:
    """Search results: one bar per vector, its strongest tokens written beside it."""
    fig, ax = new_figure(width=9, height=0.9 + 0.3 * len(names))
    at = np.arange(len(names))[::-1]
    ax.barh(at, scores, color=COLORS["target"], height=0.7)
    top = max(scores, default=1.0) or 1.0
    for y, score, tokens in zip(at, scores, words, strict=True):
        ax.text(
            score + 0.02 * top,
            y,
            plain("  ".join(printable(t.strip()) or "\u00b7" for t in tokens)),
            va="center",
            fontsize=8,
        )
    ax.set_yticks(at, [plain(name) for name in names])
    ax.set_xlim(0, 3.2 * top)
    ax.set_xticks([t for t in ax.get_xticks() if t <= 1.05 * top])
    ax.grid(False)
    return figure_of(finish(ax, title, "score"))


def clamp_curves(
    values: Sequence[float],
    panels: Mapping[str, Mapping[str, Sequence[Triple]]],
    y: str,
    title: str = "",
    x: str = "clamped activation",
    natural: float | None = None,
) -> Figure:
    """One panel per concept: probability of its words against the clamped activation, with controls (log scale).

    `natural`: the largest activation on the texts that were run; what lies beyond it is shaded.
    """
    fig, axes = new_figure(1, len(panels), width=4.2 * len(panels), height=3.4, sharey=True, squeeze=False)
    for ax, (name, series) in zip(axes[0], panels.items(), strict=True):
        for (label, rows), color in zip(series.items(), _LINES, strict=False):
            found = np.asarray(rows)
            ax.fill_between(values, found[:, 1], found[:, 2], color=color, alpha=0.2, lw=0)
            ax.plot(values, found[:, 0], color=color, marker="o", ms=3, label=plain(label))
        ax.set_yscale("log")
        if natural is not None:
            ax.axvspan(natural, max(values), color=COLORS["ink"], alpha=0.06, lw=0, label="beyond these texts")
        finish(ax, name, x)
    axes[0, 0].set_ylabel(plain(y))
    axes[0, 0].legend(frameon=False, fontsize=9)
    fig.suptitle(plain(title), x=0.01, ha="left", fontweight="bold", fontsize=11)
    return fig


def piling(drift: Mapping[str, Sequence[float]], title: str = "") -> Figure:
    """Shift of unrelated answers (%) while concept after concept gets its noise; one line per way of restoring."""
    fig, ax = new_figure(width=8, height=3.2)
    colors = (COLORS[name] for name in ("general", "accent", "ink"))
    for (label, values), color in zip(drift.items(), colors, strict=False):
        ax.plot(range(1, len(values) + 1), [float(x) for x in values], color=color, marker="o", ms=4, label=label)
    finish(ax, title, "vectors disturbed so far, one after the other", "answer shift, unrelated (%)", legend=True)
    return fig


def noise_panels(studies: Mapping[str, NoiseStudy], n_resamples: int, title: str = "") -> Figure:
    """One panel per study: answer shift under noise on 1, 5, 20 vectors, with the two kinds of control vectors."""
    panels = {
        name: {
            label: [study.mean(kind, asked, n, n_resamples) for n in study.sizes]
            for (kind, asked), (label, _) in NOISE_SERIES.items()
        }
        for name, study in studies.items()
    }
    sizes = max((study.sizes for study in studies.values()), key=len)
    colors = {label: COLORS[color] for label, color in NOISE_SERIES.values()}
    return interval_panels(panels, [str(n) for n in sizes], colors, "answer shift (%)", title, "vectors per concept")


def margin_panels(
    panels: Mapping[str, Mapping[str, Mapping[int, Mapping[str, Tensor]]]], n_resamples: int, title: str = ""
) -> Figure:
    """One panel per change of the vectors: what it does to the margin, concept vectors against equally active ones.

    `panels`: name -> kind of vectors -> vectors per concept -> concept -> change of each question's margin.
    """
    names = {"concept": ("concept vectors", "target"), "matched": ("vectors as active at answers", "second")}
    rows = {
        name: {
            names[kind][0]: [bootstrap(cat(list(each.values())), n_resamples) for each in sizes.values()]
            for kind, sizes in kinds.items()
        }
        for name, kinds in panels.items()
    }
    sizes = max((next(iter(kinds.values())) for kinds in panels.values()), key=len)
    colors = {label: COLORS[color] for label, color in names.values()}
    y = "change of the margin (nats)"
    return interval_panels(rows, [str(n) for n in sizes], colors, y, title, "vectors per concept")
