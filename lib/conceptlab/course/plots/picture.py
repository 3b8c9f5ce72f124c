"""The one picture of the README: a concept erased, before, after, and under the control, from the lab's table."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .shared import Estimate
from .style import COLORS, finish, new_figure, plain

GROUPS = {
    "left_target_known": "Japan",
    "left_neighbour_known": "China (its neighbour)",
    "left_general_known": "anything else",
}
SERIES = {"pisces": "after PISCES", "other_features": "control: same rows, other features"}


def erased_estimates(table: Path, concept: str = "japan") -> dict[str, list[tuple[float, float, float]]]:
    """Share of the known answers that is left, by state and set of questions: value, low, high."""
    with open(table, encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["concept"] == concept and not r["attack"]]
    found = {
        (r["method"], r["metric"]): (float(r["value"]), float(r["low"]), float(r["high"]))
        for r in rows
        if r["metric"] in GROUPS
    }
    series = {label: [found[method, metric] for metric in GROUPS] for method, label in SERIES.items()}
    return {"before": [(1.0, 1.0, 1.0)] * len(GROUPS), **series}


def state_bars(
    states: Mapping[str, Sequence[Estimate]],
    groups: Sequence[str],
    colors: Sequence[str],
    title: str,
    y: str,
    chance: float | None = None,
) -> Figure:
    """Bars by group, one per state of the model, with intervals where they have a width and the value inside.

    `colors`: names in the course's palette, one per state; `chance`: height of the dotted line of a guess.
    """
    fig, ax = new_figure(width=8, height=3.6)
    width = 0.78 / len(states)
    for k, ((label, rows), color) in enumerate(zip(states.items(), colors, strict=True)):
        at = np.arange(len(rows)) + width * (k - (len(states) - 1) / 2)
        middle, low, high = np.array([row[:3] for row in rows], dtype=float).T
        error = np.nan_to_num(np.stack([middle - low, high - middle])).clip(0)
        ax.bar(at, middle, 0.92 * width, color=COLORS[color], label=plain(label))
        ax.errorbar(at, middle, error, fmt="none", ecolor="#555555", capsize=3 if error.any() else 0, lw=1.2)
        for x, value in zip(at, middle, strict=True):
            ax.text(x - 0.42 * width, 0.02, f"{value:.0%}", va="bottom", fontsize=8, color="white", fontweight="bold")
    if chance is not None:
        ax.axhline(chance, color=COLORS["ink"], lw=1, ls=":")
    ax.set_xticks(range(len(groups)), [plain(group) for group in groups])
    ax.grid(False, axis="x")
    ax.set_ylim(0, 1.08)
    finish(ax, title, "questions about", y)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return fig


def erased_picture(table: Path) -> Figure:
    """Before, after and control for Japan, with 95 % intervals over questions."""
    title, y = "Japan, erased from the weights of SmolLM2-135M", "answers left (over chance)"
    return state_bars(erased_estimates(table), list(GROUPS.values()), ("ink", "target", "control"), title, y)
