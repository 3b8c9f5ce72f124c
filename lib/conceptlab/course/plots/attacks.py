"""Figures of notebook 05: recovery against strength, and recovered shares side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...core import ConceptLabError, Interval
from .shared import ARMS, Look, strength_curves
from .style import COLORS, figure_of, finish, new_figure, plain

# A word in a line's name -> its look, the same in every figure of the notebook; the edits under attack take turns.
KNOWN: Mapping[str, Look] = {
    "unrelated": ("control", "s", "--"), "another": ("control", "s", "--"), "random": ("accent", "D", "-."),
    "original": ("ink", "^", ":"),
}  # fmt: skip
UNDER_ATTACK: tuple[Look, ...] = (
    ("target", "o", "-"), ("neighbour", "v", "--"), ("second", "P", "-."), ("general", "X", ":"),
)  # fmt: skip


def looks(names: Sequence[str]) -> list[Look]:
    """Black for the original, magenta for a random edit, grey for what should find nothing, orange for the edit."""
    edits = iter(UNDER_ATTACK)
    return [next((look for word, look in KNOWN.items() if word in name), None) or next(edits) for name in names]


def candidate_curves(curves: Mapping[str, Mapping[str, Interval]], title: str) -> Figure:
    """One line per model or control: how often the answer is among so many candidates."""
    x, y = "candidates per question (B)", "answer among them"
    return strength_curves(curves, title, x, y, arms=looks(list(curves)))


def curves_told(curves: Mapping[str, Mapping[int, Interval]], unit: str) -> str:
    """First and last value of every line in words, for a figure's alternative text."""
    told = []
    for name, curve in curves.items():
        first, last = min(curve), max(curve)
        told.append(f"{name} from {curve[first].value:+.2f} to {curve[last].value:+.2f}")
    steps = max(max(curve) for curve in curves.values())
    return f"In {steps} steps, in {unit}: {'; '.join(told)}"


def recovery_curves(
    curves: Mapping[str, Mapping[int, Interval]],
    references: Mapping[str, float],
    title: str,
    y: str,
    ax: Axes | None = None,
    legend: bool = True,
) -> Figure:
    """One line per arm against optimisation steps, its 95 % interval as a bar; horizontal lines for references.

    `curves`: arm -> {steps: interval}; `references`: name -> level (for example the original model).
    """
    if len(curves) > len(ARMS):
        raise ConceptLabError(f"One panel holds {len(ARMS)} arms at most; got {len(curves)}.")
    ax = ax or new_figure(width=8, height=3.8)[1]
    for (name, curve), (color, marker, line) in zip(curves.items(), looks(list(curves)), strict=True):
        steps = sorted(curve)
        shift = 0.12 * (list(curves).index(name) - (len(curves) - 1) / 2)  # intervals side by side
        values = [curve[s].value for s in steps]
        error = [[curve[s].value - curve[s].low for s in steps], [curve[s].high - curve[s].value for s in steps]]
        ax.errorbar(
            [s + shift for s in steps], values, error, label=plain(name), color=COLORS[color], marker=marker,
            linestyle=line, capsize=2, elinewidth=1, markersize=5,
        )  # fmt: skip
    for name, level in references.items():
        ax.axhline(level, color=COLORS["ink"], linewidth=0.8, zorder=0, label=plain(name))
    finish(ax, title, "optimisation steps of the attacker", y)
    ax.set_xticks(sorted({s for curve in curves.values() for s in curve}))
    if legend:
        ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure_of(ax)


def attack_matrix(
    cells: Mapping[str, Mapping[str, Interval]], title: str, label: str = "recovered share", ax: Axes | None = None
) -> Figure:
    """Methods (rows) by attacks (columns): number, interval below it, colour by number; empty where nothing was run.

    `cells`: method -> attack -> interval. A cell whose interval excludes 0 is set in bold.
    """
    attacks = list(dict.fromkeys(a for row in cells.values() for a in row))
    ax = ax or new_figure(width=1.6 + 0.86 * len(attacks), height=1.5 + 0.5 * len(cells))[1]
    values = np.full((len(cells), len(attacks)), np.nan)
    for i, row in enumerate(cells.values()):
        for a, x in row.items():
            values[i, attacks.index(a)] = x.value
    image = ax.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for i, row in enumerate(cells.values()):
        for a, x in row.items():
            sure = x.low > 0 or x.high < 0
            text = f"{x.value:.2f}" + (f"\n[{_short(x.low)}, {_short(x.high)}]" if x.bounded else "")
            ax.text(
                attacks.index(a), i, text, ha="center", va="center", fontsize=7,
                fontweight="bold" if sure else "normal", color="white" if abs(x.value) > 0.65 else "black",
            )  # fmt: skip
    ax.set_xticks(range(len(attacks)), [plain(a.replace("_", "\n")) for a in attacks], fontsize=8)
    ax.set_yticks(range(len(cells)), [plain(m.replace("_", " ")) for m in cells], fontsize=9)
    ax.grid(False)
    finish(ax, title)
    figure_of(ax).colorbar(image, ax=ax, label=plain(label), pad=0.01)
    return figure_of(ax)


BARS = ("ink", "target", "second", "control", "neighbour", "accent")


def before_after(groups: Mapping[str, Mapping[str, Interval | None]], title: str, y: str) -> Figure:
    """A group of bars per attack, one bar per state of the model, with intervals; six states at most.

    `groups`: attack -> state -> number; a state that an attack does not have stays empty.
    """
    states = list(dict.fromkeys(s for row in groups.values() for s in row))
    if len(states) > len(BARS):
        raise ConceptLabError(f"A group holds {len(BARS)} bars at most; got {len(states)}.")
    ax = new_figure(width=min(3.5 + 0.95 * max(len(groups), 1), 11.5), height=4.0)[1]
    width = 0.84 / max(len(states), 1)
    for k, (state, color) in enumerate(zip(states, BARS, strict=False)):
        found = [(i, x) for i, row in enumerate(groups.values()) if (x := row.get(state)) is not None]
        at = [i + (k - (len(states) - 1) / 2) * width for i, _ in found]
        values = [x.value for _, x in found]
        error = np.nan_to_num([[x.value - x.low for _, x in found], [x.high - x.value for _, x in found]])
        ax.bar(at, values, 0.9 * width, color=COLORS[color], label=plain(state))
        ax.errorbar(at, values, error, fmt="none", ecolor=COLORS["ink"], elinewidth=0.8, capsize=2)
    ax.axhline(0, color=COLORS["ink"], lw=0.8)
    ax.set_xticks(range(len(groups)), [plain(a.replace("_", "\n")) for a in groups], fontsize=9)
    ax.grid(False, axis="x")
    finish(ax, title, "", y)
    figure_of(ax).legend(
        *ax.get_legend_handles_labels(),
        frameon=False,
        fontsize=9,
        loc="outside lower center",
        ncols=min(len(states), 3),
    )
    return figure_of(ax)


def _short(x: float) -> str:
    return f"{x:.1f}" if np.isfinite(x) else ("-\u221e" if x < 0 else "\u221e")


def step_histogram(ratios: Mapping[str, np.ndarray], title: str) -> Figure:
    """How large the changes of single weights are, in rounding steps: one outline per edit, on a logarithmic axis."""
    ax = new_figure(width=8, height=3.2)[1]
    bins = np.logspace(-6, 2, 60).tolist()
    for (name, values), (color, _, line) in zip(ratios.items(), looks(list(ratios)), strict=True):
        ax.hist(
            np.clip(values, bins[0], bins[-1]), bins, weights=np.full(len(values), 1 / len(values)), histtype="step",
            label=plain(name), color=COLORS[color], linestyle=line, linewidth=1.6,
        )  # fmt: skip
    ax.axvline(0.5, color=COLORS["ink"], linewidth=0.8)
    ax.set_xscale("log")
    finish(ax, title, "change of one weight, in steps of 4-bit rounding (line: half a step)", "share", legend=True)
    return figure_of(ax)
