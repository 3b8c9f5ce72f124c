"""Figures of notebook 03: contexts as heat maps, detection scores against their controls, reading against writing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .style import COLORS, finish, new_figure, plain, printable

_FONT, _CHAR = 8.4, 0.0702  # points, and inches per character: 7 pixels, so that letters keep their distance


def context_heat_map(
    title: str,
    contexts: Sequence[Sequence[str]],
    activations: Sequence[Sequence[float]],
    places: Sequence[int],
    notes: Sequence[str] = (),
    before: int = 50,
    after: int = 20,
) -> Figure:
    """One context per line, aligned at the token in question; the darker a token, the stronger the unit fires on it.

    `contexts`: tokens of each window; `activations`: one number per token; `places`: the aligned token; `notes`: a few
    words per line for the right margin; `before`, `after`: characters shown on either side.
    """
    margin = 2 + max((len(n) for n in notes), default=0)
    chars = before + after + margin
    fig, ax = new_figure(width=chars * _CHAR + 0.09, height=0.23 * len(contexts) + 0.4)
    peak = max((max(a) for a in activations if len(a)), default=0.0) or 1.0
    for line, (tokens, heat, place) in enumerate(zip(contexts, activations, places, strict=True)):
        shown = [printable(t) for t in tokens]
        x = before - sum(map(len, shown[:place]))
        for text, value in zip(shown, heat, strict=True):
            end = min(x + len(text), before + after)
            visible = text[max(0, -x) : max(0, end - x)]
            if visible:
                left = max(x, 0)
                if value > 0:
                    box = Rectangle((left, line - 0.45), len(visible), 0.9, lw=0, fc=COLORS["target"])
                    box.set_alpha(0.12 + 0.6 * value / peak)
                    ax.add_patch(box)
                ax.text(left, line, plain(visible), family="monospace", size=_FONT, va="center", color=COLORS["ink"])
            x += len(text)
        if notes:
            ax.text(
                before + after + 2,
                line,
                plain(notes[line]),
                family="monospace",
                size=_FONT,
                va="center",
                color="#777777",
            )
    ax.set(xlim=(0, chars), ylim=(len(contexts) - 0.4, -0.6))
    ax.axis("off")
    ax.set_title(plain(title), loc="left", fontweight="bold", fontsize=10)
    return fig


def score_strips(
    title: str,
    scores: Mapping[str, Sequence[float]],
    intervals: Mapping[str, tuple[float, float, float]],
    colors: Mapping[str, str],
    label: str = "detection AUROC",
    dots: str = "units",
) -> Figure:
    """One dot per unit (or whatever `dots` says), one line per kind of unit, with mean and interval; 0.5 is chance."""
    fig, ax = new_figure(width=8.0, height=0.5 * len(scores) + 1.2)
    generator = np.random.default_rng(0)
    for y, (name, values) in enumerate(scores.items()):
        jitter = y + generator.uniform(-0.18, 0.18, len(values))
        ax.scatter(values, jitter, s=16, color=colors[name], alpha=0.45, lw=0)
        mean, low, high = intervals[name]
        ax.plot([low, high], [y, y], color=COLORS["ink"], lw=2.5, solid_capstyle="butt")
        ax.plot(mean, y, "o", color=colors[name], mec=COLORS["ink"], ms=8)
        ax.text(
            1.005, y, f"{mean:.2f} [{low:.2f}, {high:.2f}]", transform=ax.get_yaxis_transform(), va="center", size=9
        )
    ax.axvline(0.5, color=COLORS["ink"], lw=1, ls=":")
    ax.set_yticks(range(len(scores)), [plain(name) for name in scores])
    ax.set_ylim(len(scores) - 0.5, -0.5)
    finish(ax, title, f"{label} (dotted: chance; dots: {dots}; bars: 95 % interval of the mean)")
    return fig
