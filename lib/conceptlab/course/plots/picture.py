"""The one picture of the README: a concept erased, before, after, and under the control, from the lab's table."""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.figure import Figure

from .shared import interval_panels
from .style import COLORS

GROUPS = {"left_target_known": "Japan", "left_neighbour_known": "China", "left_general_known": "general"}
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
    colors = dict(zip(("before", *SERIES.values()), (COLORS["ink"], COLORS["target"], COLORS["control"]), strict=True))
    title = "Japan erased from the weights: what is left of the answers the model knew"
    return interval_panels(
        {"": erased_estimates(table)}, list(GROUPS.values()), colors, "share left (over chance)", title, numbers=True
    )
