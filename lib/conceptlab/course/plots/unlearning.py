"""Figures of notebook 06, from plain arrays and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure

from ...core import Interval
from .diagrams import Diagram
from .style import COLORS, finish, new_figure, plain

FAMILIES = {  # kind of method -> label, colour, marker
    "dictionary": ("dictionary (PISCES)", COLORS["target"], "o"),
    "combination": ("combinations", COLORS["target"], "P"),
    "words": ("words", COLORS["general"], "^"),
    "vectors": ("zeroed vectors", COLORS["general"], "v"),
    "fine-tuning": ("fine-tuning", COLORS["neighbour"], "s"),
    "localised": ("localised", COLORS["accent"], "D"),
    "run-time": ("run-time", COLORS["second"], "X"),
    "control": ("control", COLORS["control"], "x"),
}


def diagram() -> Diagram:
    """Five places where a model can be made to forget, and what is measured of each."""
    alt = (
        "Where unlearning methods act. A prompt passes the model's layers and becomes an answer. Run-time methods sit "
        "at the two ends: they change the prompt before it is read or the output after it is computed, and leave the "
        "weights alone. Inside, fine-tuning moves all weights a little by gradients; localised methods rewrite chosen "
        "weights by a formula; dictionary methods rewrite the rows that carry chosen features. Exact methods keep the "
        "data in separate adapters that can be taken out. Below: every method meets the same scorecard and the same "
        "attacks."
    )
    d = Diagram(900, 340, alt)
    d.box(10, 92, 90, 50, "prompt").arrow((100, 117), (170, 117))
    d.box(170, 60, 540, 114).label(440, 50, "weights of all layers", size=12, anchor="middle")
    d.arrow((710, 117), (790, 117)).box(790, 92, 100, 50, "answer")
    inside = (
        ("fine-tuning\na little everywhere", "neighbour", 182), ("localised\nchosen weights", "accent", 314),
        ("dictionary\nrows of features", "target", 446), ("exact\nown adapters", "general", 578),
    )  # fmt: skip
    for text, color, x in inside:
        d.box(x, 78, 122, 78, text, color, 12)
    d.box(60, 8, 150, 34, "run-time: the prompt", "second", 12).arrow((135, 42), (135, 108), "second", dashed=True)
    d.box(680, 8, 160, 34, "run-time: the output", "second", 12).arrow((750, 42), (750, 108), "second", dashed=True)
    d.box(
        60,
        224,
        360,
        96,
        "one scorecard\ntarget, neighbour, unseen near domain,\ngeneral, fluency, residue in the weights",
        size=12,
    )
    d.box(
        480,
        224,
        360,
        96,
        "one attack suite\ntraining on text without the answers,\nrounding, other forms, reading inside",
        size=12,
    )
    d.arrow((330, 174), (270, 224)).arrow((560, 174), (620, 224)).arrow((480, 272), (420, 272), dashed=True)
    return d


def plot_cosines(names: Sequence[str], cosines: np.ndarray, title: str) -> Figure:
    """Heat map of cosines between the gradients of losses, `[n, n]`, with the numbers."""
    fig, ax = new_figure(width=7.4, height=5.1)
    image = ax.imshow(cosines, cmap="RdBu_r", vmin=-1, vmax=1)
    for i, j in np.ndindex(cosines.shape):
        color = "white" if abs(cosines[i, j]) > 0.65 else "black"
        ax.text(j, i, f"{cosines[i, j]:.2f}", ha="center", va="center", fontsize=8, color=color)
    ax.set_xticks(range(len(names)), list(map(plain, names)), rotation=35, ha="right", fontsize=9)
    ax.set_yticks(range(len(names)), list(map(plain, names)), fontsize=9)
    ax.grid(False)
    fig.colorbar(image, ax=ax, label="cosine of the gradients")
    fig.suptitle(plain(title), x=0.01, ha="left", fontweight="bold", fontsize=11)
    return fig


Points = Sequence[tuple[Interval, Interval]]  # (nats lost by the target, nats lost elsewhere), weak to strong


def plot_curves(panels: Mapping[str, Mapping[str, Points]], title: str, most: float = 4.0, jump: float = 1.5) -> Figure:
    """Strength curves from the origin, one panel per spared set, one line per family; bars at every strength.

    Both axes end at `most` nats: where a target has lost so much, nothing is told any more by a stronger edit. Between
    two strengths more than `jump` nats apart, where nothing was measured, the line is dashed.
    """
    width = min(5.2 * len(panels), 11.4)
    fig, axes = new_figure(1, len(panels), width=width, height=3.9, sharey=True, squeeze=False)
    drawn = {}
    for ax, (panel, families) in zip(axes[0], panels.items(), strict=True):
        for family, points in families.items():
            label, color, marker = FAMILIES[family]
            x, y = (np.array([(0, 0, 0), *(p[i][:3] for p in points)], dtype=float) for i in (0, 1))
            error = np.abs(np.nan_to_num(np.stack([y[:, 0] - y[:, 1], y[:, 2] - y[:, 0]])))
            drawn[label] = ax.errorbar(
                x[:, 0], y[:, 0], error, fmt=marker, ms=5, elinewidth=0.7, capsize=2, color=color
            )
            for (a, b), (c, d) in pairwise(zip(x[:, 0], y[:, 0], strict=True)):
                ax.plot([a, c], [b, d], ls=(0, (4, 3)) if c - a > jump else "-", color=color, lw=1.5)
        ax.plot([0, most], [0, most], ":", color=COLORS["ink"], lw=1)
        ax.axhline(0, color=COLORS["ink"], lw=0.8)
        ax.set_xlim(-0.05 * most, 1.05 * most)
        ax.set_ylim(-0.15 * most, 1.05 * most)
        finish(ax, panel, "nats the target has lost")
    axes[0, 0].set_ylabel("nats others have lost")
    fig.legend(list(drawn.values()), list(drawn), loc="outside lower center", ncols=6, fontsize=9, frameon=False)
    fig.suptitle(plain(title), x=0.01, ha="left", fontweight="bold", fontsize=11)
    return fig


Moved = Sequence[tuple[str, float, float]]  # (method, efficacy, cosine)
FLOOR = 1e-5  # of 1 minus a cosine of which five digits are kept


def plot_residue(panels: Mapping[str, Mapping[str, Moved]], title: str, named: Sequence[str]) -> Figure:
    """How far vectors moved against efficacy: panel (which vectors) -> kind -> rows; `named` methods are named.

    The height is 1 minus the cosine on a logarithmic axis; what is below `FLOOR` (the table's digits) is drawn there.
    """
    fig, axes = new_figure(1, len(panels), width=5.2 * len(panels), height=4.2, sharey=True, squeeze=False)
    drawn = {}
    for ax, (panel, points) in zip(axes[0], panels.items(), strict=True):
        for kind, rows in points.items():
            label, color, marker = FAMILIES[kind]
            across, up = [r[1] for r in rows], [max(1 - r[2], FLOOR) for r in rows]
            (drawn[label],) = ax.plot(across, up, marker, ms=7, color=color, ls="none")
        shown = sorted((r[1], r[2], r[0]) for rows in points.values() for r in rows if r[0] in named)
        for i, (x, y, name) in enumerate(shown):
            height, text = max(1 - y, FLOOR), plain(name.replace("_", " "))
            place = (x, max(5 * height, 1e-4 * 6 ** (i % 4)))  # rows of labels, so that none lies on another
            line = {"arrowstyle": "-", "lw": 0.6, "color": COLORS["ink"], "shrinkB": 3}
            ax.annotate(text, (x, height), xytext=place, fontsize=8, ha="center", arrowprops=line)
        ax.axhline(0.1, color=COLORS["ink"], lw=0.8, ls=":")
        ax.set_yscale("log")
        ax.set_xlim(-0.03, 1.12)
        ax.set_ylim(0.5 * FLOOR, 8.0)
        finish(ax, panel, "efficacy (1: the target is guessed)")
    axes[0, 0].set_ylabel("1 - cosine (lowest: 1e-5 or 0)")
    fig.legend(list(drawn.values()), list(drawn), loc="outside lower center", ncols=6, fontsize=9, frameon=False)
    fig.suptitle(plain(title), x=0.01, ha="left", fontweight="bold", fontsize=11)
    return fig


def plot_forms(
    kept: Mapping[str, np.ndarray], trained: Mapping[str, Sequence[str]], asked: Sequence[str], title: str
) -> Figure:
    """One heat map per method: share of the margin that facts keep, rows trained in, columns asked in (nan: empty)."""
    fig, axes = new_figure(1, len(kept), width=max(6.0, 1.4 + 2.5 * len(kept)), height=3.2, squeeze=False)
    for k, (ax, (method, table)) in enumerate(zip(axes[0], kept.items(), strict=True)):
        image = ax.imshow(table, cmap="viridis", vmin=0, vmax=1.1, aspect="auto")
        for i, j in np.ndindex(table.shape):
            if np.isfinite(table[i, j]):
                own = trained[method][i] == asked[j]
                color = "white" if table[i, j] < 0.55 else "black"
                weight = "bold" if own else "normal"
                ax.text(j, i, f"{table[i, j]:.2f}", ha="center", va="center", fontsize=8, color=color, weight=weight)
        ax.set_xticks(
            range(len(asked)), [plain(a.replace("_", " ")) for a in asked], rotation=40, ha="right", fontsize=8
        )
        ax.set_yticks(range(len(table)), [plain(t.replace("_", " ")) for t in trained[method]], fontsize=8)
        ax.grid(False)
        finish(ax, method.replace("_", " "), "asked as", "trained as" if k == 0 else "")
        ax.title.set_fontsize(9)
    fig.colorbar(image, ax=axes, label="margin kept", shrink=0.9)
    fig.suptitle(plain(title), x=0.01, ha="left", fontweight="bold", fontsize=11)
    return fig


def plot_rows(panels: Mapping[str, Mapping[str, Interval]], references: Mapping[str, float], title: str) -> Figure:
    """One panel per measure, one row per method with its interval; `references[panel]`: a vertical line."""
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    fig, axes = new_figure(
        1, len(panels), width=1.6 + 2.9 * len(panels), height=1.3 + 0.3 * len(names), sharey=True, squeeze=False
    )
    for ax, (panel, rows) in zip(axes[0], panels.items(), strict=True):
        for name, x in rows.items():
            error = np.abs(np.nan_to_num(np.array([[x.value - x.low], [x.high - x.value]])))
            ax.errorbar([x.value], [names.index(name)], xerr=error, fmt="o", ms=5, capsize=2, color=COLORS["neighbour"])
        if panel in references:
            ax.axvline(references[panel], color=COLORS["ink"], lw=0.9, ls="--")
        finish(ax, "", panel)
    axes[0, 0].set_yticks(range(len(names)), [plain(name.replace("_", " ")) for name in names], fontsize=9)
    axes[0, 0].invert_yaxis()
    fig.suptitle(plain(title), x=0.01, ha="left", fontweight="bold", fontsize=11)
    return fig
