"""The one picture of the README: a concept erased, before, after, and under the control, from the lab's table."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .style import COLORS, finish, new_figure

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


def erased_picture(table: Path) -> Figure:
    """Before, after and control for Japan, with 95 % intervals over questions."""
    found = erased_estimates(table)
    fig, ax = new_figure(width=8, height=3.6)
    for k, ((label, rows), color) in enumerate(zip(found.items(), ("ink", "target", "control"), strict=True)):
        at = np.arange(len(rows)) + 0.26 * (k - 1)
        middle, low, high = np.array(rows).T
        error = None if label == "before" else np.stack([middle - low, high - middle]).clip(0)
        ax.bar(at, middle, 0.24, yerr=error, capsize=3, color=COLORS[color], ecolor=COLORS["ink"], label=label)
        for x, value in zip(at, middle, strict=True):
            ax.text(x - 0.11, 0.02, f"{value:.0%}", va="bottom", fontsize=8, color="white", fontweight="bold")
    ax.set_xticks(range(len(GROUPS)), GROUPS.values())
    ax.grid(False, axis="x")
    finish(ax, "Japan, erased from the weights of SmolLM2-135M", "questions about", "answers left (over chance)")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return fig
