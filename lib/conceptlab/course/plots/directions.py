"""Figures of notebook 09, from plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from .diagrams import Diagram
from .style import COLORS, finish, new_figure

KIND_LOOK = {"step": ("target", "o"), "copy": ("general", "s"), "memory": ("neighbour", "^")}
Triple = tuple[float, float, float]  # value, low, high


def diagram() -> Diagram:
    """One story, one question, three ways to its answer."""
    alt = (
        "One story names three people. The same question is asked about each of them: for one the answer is told, for "
        "one it takes a step, for one it must be remembered. The state at the word Answer is projected on a direction "
        "that was found on other stories; a baseline that sees only the words gets the same prompts."
    )
    d = Diagram(920, 330, alt)
    story = ("Carl lives in Paris.", "Anna lives in the same city as Ben.", "Ben lives in Rome.",
             "Dora lives in the capital of Spain.")  # fmt: skip
    d.box(10, 20, 300, 150, "\n".join(story))
    d.label(160, 190, "one story", anchor="middle")
    rows = ((30, "Carl? copy", "general"), (95, "Anna? step", "target"), (160, "Dora? memory", "neighbour"))
    for y, text, color in rows:
        d.box(380, y - 18, 130, 40, text, color)
        d.arrow((310, 95), (380, y + 2)).arrow((510, y + 2), (580, 95), color)
    d.label(445, 212, "the same question,", anchor="middle").label(445, 230, "another name", anchor="middle")
    d.box(580, 65, 140, 60, 'state h of layer l\nat "Answer:"')
    d.arrow((720, 95), (770, 95)).box(770, 65, 140, 60, "score = h . d\nAUROC")
    d.box(770, 200, 140, 60, "words, length,\npunctuation", "control")
    d.arrow((840, 200), (840, 125), "control", dashed=True).label(760, 235, "baseline", "control", anchor="end")
    d.label(10, 290, "d: mean of one kind minus mean of the other, from other templates only.")
    d.label(10, 314, "If the score still tells step from memory, it is not the format that it reads.")
    return d


def plot_plane(places: Mapping[str, np.ndarray], axes: Sequence[str], title: str) -> Figure:
    """Items on two axes, one colour and mark per kind; `places[kind]` `[n, 2]`."""
    fig, ax = new_figure(width=6.4, height=4.0)
    for kind, at in places.items():
        color, marker = KIND_LOOK.get(kind, ("ink", "o"))
        ax.scatter(at[:, 0], at[:, 1], s=22, alpha=0.7, marker=marker, color=COLORS[color], label=kind, linewidths=0)
    finish(ax, title, axes[0], axes[1])
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def plot_layers(
    curves: Mapping[str, np.ndarray], title: str, controls: Mapping[str, np.ndarray] | None = None, y: str = "AUROC",
    bands: bool = True,
) -> Figure:  # fmt: skip
    """One line per set over the layers with its band, `curves[name]` `[layers, 3]`; controls `[layers]` in grey."""
    fig, ax = new_figure(width=8.6, height=3.6)
    colors = [COLORS[c] for c in ("target", "neighbour", "general", "second", "accent", "ink")]
    for color, (name, found) in zip(colors, curves.items(), strict=False):
        layers = np.arange(len(found))
        ax.plot(layers, found[:, 0], color=color, label=name)
        if bands:
            ax.fill_between(layers, found[:, 1], found[:, 2], color=color, alpha=0.15, lw=0)
    for style, (name, values) in zip(("--", ":", "-."), (controls or {}).items(), strict=False):
        ax.plot(np.arange(len(values)), values, color=COLORS["control"], ls=style, label=name)
    ax.axhline(0.5 if y == "AUROC" else 0, color=COLORS["ink"], lw=0.8)
    finish(ax, title, "layer", y)
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def plot_ladder(rungs: Sequence[str], series: Mapping[str, Sequence[Triple | None]], title: str) -> Figure:
    """Per set (from naive to matched) the AUROC of every reading, side by side with intervals."""
    fig, ax = new_figure(width=8.6, height=3.8)
    looks = [("target", "o"), ("accent", "D"), ("neighbour", "s"), ("second", "^"), ("control", "x")]
    for k, ((name, found), (color, marker)) in enumerate(zip(series.items(), looks, strict=False)):
        there = [(i, f) for i, f in enumerate(found) if f is not None]
        at = [i + 0.13 * (k - (len(series) - 1) / 2) for i, _ in there]
        middle, low, high = np.array([f for _, f in there]).T
        error = np.clip(np.stack([middle - low, high - middle]), 0, None)
        ax.errorbar(at, middle, error, fmt=marker, ms=5, color=COLORS[color], label=name, lw=1)
    ax.axhline(0.5, color=COLORS["ink"], lw=0.8)
    ax.set_xticks(range(len(rungs)), rungs)
    ax.set_ylim(0.2, 1.05)
    finish(ax, title, "", "AUROC, held out")
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def plot_doses(
    panels: Mapping[str, Mapping[str, Mapping[float, Triple]]], random: Mapping[str, Mapping[float, Sequence[float]]],
    title: str,
) -> Figure:  # fmt: skip
    """Per kind of question: change of the margin against the dose, per direction; grey: every random direction."""
    fig, axes = new_figure(1, len(panels), width=3.4 * len(panels), height=3.8, sharey=True, squeeze=False)
    colors = [COLORS[c] for c in ("target", "accent", "general", "second")]
    for i, (ax, (kind, lines)) in enumerate(zip(axes[0], panels.items(), strict=True)):
        for dose, values in random[kind].items():
            label = "random directions" if dose == max(random[kind]) else None
            ax.plot([dose] * len(values), values, "_", color=COLORS["control"], ms=12, label=label)
        for color, (name, found) in zip(colors, lines.items(), strict=False):
            at = sorted([*found, 0.0])
            rows = np.array([found.get(dose, (0.0, 0.0, 0.0)) for dose in at])
            ax.errorbar(at, rows[:, 0], np.abs(rows[:, 1:].T - rows[:, 0]), color=color, marker="o", ms=4, label=name)
        ax.axhline(0, color=COLORS["ink"], lw=0.8)
        finish(ax, f"{kind} questions", "dose", "change of the margin (nats)" if i == 0 else "")
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, frameon=False, fontsize=9, loc="outside lower center", ncols=3)
    fig.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
    return fig


def curve(rows: Sequence[Mapping[str, str]], name: str, method: str, way: str, metric: str = "auroc") -> np.ndarray:
    """Value, low and high of every layer `[layers, 3]` of one reading in the table of the experiment `directions`."""
    found = {
        int(r["budget"]): [float(r[k]) for k in ("value", "low", "high")]
        for r in rows
        if (r["concept"], r["method"], r["attack"], r["metric"]) == (name, method, way, metric)
    }
    return np.array([found[layer] for layer in sorted(found)]).reshape(-1, 3)


def number(
    rows: Sequence[Mapping[str, str]], name: str, method: str, way: str = "", metric: str = "auroc", budget: str = ""
) -> Triple | None:
    """Value, low and high of one number of that table; None where it is not there."""
    key = (name, method, way, budget, metric)
    for r in rows:
        if (r["concept"], r["method"], r["attack"], r["budget"], r["metric"]) == key:
            return float(r["value"]), float(r["low"]), float(r["high"])
    return None


def doses(
    rows: Sequence[Mapping[str, str]], rule: str, kinds: Sequence[str], names: Mapping[str, str]
) -> tuple[dict[str, dict[str, dict[float, Triple]]], dict[str, dict[float, list[float]]]]:
    """What `plot_doses` takes: per kind the curves of `names` (in the table -> label), and every random direction's.

    Minus a random direction is another one, so what was added stands at both signs of a dose.
    """
    lines: dict[str, dict[str, dict[float, Triple]]] = {kind: {label: {} for label in names.values()} for kind in kinds}
    drawn: dict[str, dict[float, list[float]]] = {kind: {} for kind in kinds}
    for r in rows:
        if r["concept"] == "steering" and r["method"] == rule and r["metric"] in kinds:
            dose, value = float(r["budget"]), float(r["value"])
            if r["attack"] in names:
                lines[r["metric"]][names[r["attack"]]][dose] = (value, float(r["low"]), float(r["high"]))
            elif r["attack"].startswith("random"):
                for at in (dose, -dose) if rule == "added" else (dose,):
                    drawn[r["metric"]].setdefault(at, []).append(value)
    return lines, drawn


def outside(
    lines: Mapping[str, Mapping[str, Mapping[float, Triple]]], random: Mapping[str, Mapping[float, Sequence[float]]]
) -> dict[str, tuple[int, int]]:
    """Per direction: at how many points (kind and dose) it lies beyond all random ones, and how many points there are.

    Of n random directions and one more, each is the lowest or the highest at a point with probability 2 / (n + 1).
    """
    found: dict[str, tuple[int, int]] = {}
    for kind, by_name in lines.items():
        for name, curve in by_name.items():
            beside = [(x[0], random[kind][dose]) for dose, x in curve.items() if dose in random[kind]]
            beyond, n = found.get(name, (0, 0))
            found[name] = (beyond + sum(not min(r) <= x <= max(r) for x, r in beside), n + len(beside))
    return found


def beyond_random(
    lines: Mapping[str, Mapping[str, Mapping[float, Triple]]], random: Mapping[str, Mapping[float, Sequence[float]]]
) -> list[tuple[str, ...]]:
    """Per direction, per kind: at which doses it lies above or below all random ones, "none" where at none."""
    lines_of = dict.fromkeys(name for by_name in lines.values() for name in by_name)
    return [(name, *(_beyond(lines[kind].get(name, {}), random[kind]) for kind in lines)) for name in lines_of]


def _beyond(curve: Mapping[float, Triple], random: Mapping[float, Sequence[float]]) -> str:
    beside = {dose: (x[0], random[dose]) for dose, x in sorted(curve.items()) if dose in random}
    told = [
        f"{dose:+g} {'above' if x > max(r) else 'below'}"
        for dose, (x, r) in beside.items()
        if not min(r) <= x <= max(r)
    ]
    return f"{len(told)} of {len(beside)}: {', '.join(told) or 'none'}"


def difficulty(
    rows: Sequence[Mapping[str, str]], pairs: Sequence[str] = ("step-memory", "copy-memory", "step-copy"),
    low: float = 0.3, high: float = 0.7,
) -> list[tuple[str, ...]]:  # fmt: skip
    """Per pair of kinds: how often each is answered rightly, and the templates in which both lie between `low` and
    `high`; pairs that the table does not hold are left out."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for r in rows:
        if r["method"] == r["metric"] == "accuracy":
            found.setdefault((r["concept"], r["attack"]), {})[r["budget"]] = float(r["value"])
    told = list[tuple[str, ...]]()
    for name in pairs:
        kinds = {kind: found.get((name, kind), {}) for kind in name.split("-")}
        first, second = kinds.values()
        templates = [t for t in first if t and t in second]
        if templates:
            fair = [t for t in templates if all(low <= right[t] <= high for right in kinds.values())]
            right = ", ".join(f"{kind} {shares['']:.2f}" for kind, shares in kinds.items())
            told.append((name, right, f"{len(fair)} of {len(templates)}: {', '.join(fair) or 'none'}"))
    return told


def left_over(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> str:
    """Which of the matched sets surely keep a share of the naive set's AUROC (interval above 0), and how large ones."""
    shares = {name: number(rows, "verdict", name, "own", "share") for name in names}
    there = {name: x for name, x in shares.items() if x}
    sure = [f"{name} ({x[0]:.0%})" for name, x in there.items() if x[1] > 0]
    highest = max((x[2] for x in there.values()), default=0.0)
    kept = f"surely left on {', '.join(sure) or 'none'} of {len(there)} matched sets"
    return f"{kept}; no interval reaches above {highest:.0%}"


def ablations(
    rows: Sequence[Mapping[str, str]], name: str, kinds: Sequence[str], factors: Sequence[str] = ("-1", "0.1")
) -> list[tuple[str, ...]]:
    """Factor and kind, what multiplying the direction does to the margin, the range of random ones of equal energy."""
    lines = list[tuple[str, ...]]()
    for factor in factors:
        for kind in kinds:
            found = number(rows, "steering", "multiplied", name, kind, factor)
            others = doses(rows, "multiplied", (kind,), {})[1][kind].get(float(factor), [])
            if found and others:
                value, low, high = found
                beside = f"{min(others):+.2f} to {max(others):+.2f} ({len(others)})"
                lines.append((factor, kind, f"{value:+.2f} [{low:+.2f}, {high:+.2f}]", beside))
    return lines
