"""Figures of notebook 10, from plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ...early_exit import Stops
from .diagrams import Diagram
from .style import COLORS, finish, new_figure

RULES = {  # rule -> label, colour, marker
    "fixed": ("fixed exit", COLORS["ink"], "-"),
    "confidence": ("confidence", COLORS["neighbour"], "-"),
    "patience": ("patience", COLORS["second"], "--"),
    "consistent": ("policy (ConsistentEE)", COLORS["target"], "o"),
    "dealt": ("the policy's depths, dealt", COLORS["control"], "x"),
    "oracle": ("oracle", COLORS["general"], "*"),
}


def diagram() -> Diagram:
    """How an item passes exits and policies."""
    alt = (
        "A text passes block after block. After every block the state goes to a linear exit, which names a class, and "
        "to a policy, which stops the text with probability p. Whoever is stopped gets the answer of that exit; the "
        "others go on. The last exit takes everyone who is left."
    )
    d = Diagram(900, 300, alt)
    d.box(10, 120, 90, 44, "text")
    for i, (x, t) in enumerate(((140, "1"), (345, "2"), (600, "L"))):
        d.box(x, 120, 110, 44, f"block {t}")
        d.box(x, 30, 110, 44, f"exit {t}: class?", "neighbour")
        d.arrow((x + 40, 120), (x + 40, 74), "neighbour")
        if t == "L":
            d.label(x + 55, 206, "takes whoever is left", anchor="middle")
        else:
            d.box(x, 210, 110, 44, f"policy {t}: p", "target")
            d.arrow((x + 40, 164), (x + 40, 210), "target")
            d.label(x + 118, 236, f"q = {'p' if i == 0 else 'p (1 - p before)'}", "target", 12)
    d.arrow((100, 142), (140, 142)).arrow((250, 142), (345, 142))
    d.label(297, 134, "goes on: 1 - p", size=11, anchor="middle")
    d.arrow((455, 142), (500, 142)).label(518, 146, ". . .", anchor="middle").arrow((540, 142), (600, 142))
    d.arrow((710, 142), (760, 142)).box(760, 120, 130, 44, "the usual answer")
    d.label(10, 288, "reward of leaving at t:  minus the loss of exit t, minus a price for every layer used", size=13)
    return d


def plot_accuracy(
    accuracy: dict[str, np.ndarray], base: dict[str, float], title: str, controls: Sequence[str] = ()
) -> Figure:
    """Accuracy of every exit `[layers]` per series; `base` draws a line at the most frequent class of a series."""
    fig, ax = new_figure(width=8, height=3.4)
    colors = [COLORS[c] for c in ("target", "neighbour", "general", "second", "accent", "ink")]
    plain = [name for name in accuracy if name not in controls]
    for name, values in accuracy.items():
        if name in plain:
            color, line = colors[plain.index(name) % len(colors)], "-"
        else:
            color, line = COLORS["control"], (":", "--", "-.")[list(controls).index(name) % 3]
        ax.plot(range(1, len(values) + 1), values, label=name, color=color, ls=line)
    for name, value in base.items():
        ax.axhline(value, color=COLORS["ink"], lw=0.8, label=name)
    ax.set_ylim(0, 1.02)
    finish(ax, title, "layers used", "share right")
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def plot_hardness(memorised: np.ndarray, never: float, n_layers: int, title: str) -> Figure:
    """Histogram of the memorised layer; the last bar splits into settled there and never right (`never`, a share)."""
    fig, ax = new_figure(width=8, height=2.8)
    share = np.bincount(memorised, minlength=n_layers + 1)[1:] / len(memorised)
    ax.bar(range(1, n_layers + 1), share, color=COLORS["neighbour"], label="right from this layer on")
    ax.bar(n_layers, never, color=COLORS["control"], label="wrong at the last exit")
    finish(ax, title, "memorised layer", "share of items", True)
    return fig


def plot_gradients(
    exact: np.ndarray, means: dict[str, np.ndarray], errors: dict[str, np.ndarray], title: str
) -> Figure:
    """REINFORCE's mean with twice its standard error against the exact gradient, per score `[n]`; slope 1 is right."""
    fig, ax = new_figure(width=6.6, height=3.6)
    styles = [(COLORS["neighbour"], "o"), (COLORS["target"], "s"), (COLORS["control"], "x")]
    for (name, mean), (color, marker) in zip(means.items(), styles, strict=False):
        slope = float((mean * exact).sum() / (exact**2).sum())
        label = f"{name}: slope {slope:.2f}"
        ax.errorbar(exact, mean, 2 * errors[name], fmt=marker, ms=4, lw=0.8, color=color, label=label)
    lim = 1.1 * np.abs(exact).max()
    ax.plot([-lim, lim], [-lim, lim], color=COLORS["ink"], lw=0.8)
    finish(ax, title, "exact gradient of a score (nats)", "mean of the sampled gradients", True)
    return fig


def plot_histograms(exits: dict[str, np.ndarray], n_layers: int, title: str) -> Figure:
    """Where policies stop: one panel per policy, share of the items at every layer (`exits`: layers from 1)."""
    fig, axes = new_figure(1, len(exits), width=3.2 * len(exits), height=2.6, sharey=True, squeeze=False)
    for i, (ax, (name, at)) in enumerate(zip(axes[0], exits.items(), strict=True)):
        share = np.bincount(at, minlength=n_layers + 1)[1:] / len(at)
        ax.bar(range(1, n_layers + 1), share, color=COLORS["target"])
        finish(ax, f"{name}: mean {at.mean():.1f}", "layer of the exit", "share of items" if i == 0 else "")
    fig.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
    return fig


def plot_tradeoff(
    curves: dict[str, tuple[np.ndarray, np.ndarray]], points: dict[str, tuple[np.ndarray, np.ndarray]], title: str
) -> Figure:
    """Accuracy against mean depth: rules with many settings as lines, policies and controls as marks."""
    fig, ax = new_figure(width=8, height=4.0)
    for name, (depth, accuracy) in curves.items():
        label, color, style = RULES[name]
        ax.plot(depth, accuracy, style, color=color, lw=1.6, label=label)
    for name, (depth, accuracy) in points.items():
        label, color, marker = RULES[name]
        ax.plot(depth, accuracy, marker, ls="none", ms=9 if marker != "*" else 14, mew=2, color=color, label=label)
    finish(ax, title, "mean layers used", "share right")
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def plot_gains(names: Sequence[str], gains: dict[str, np.ndarray], title: str) -> Figure:
    """Per task, per comparison: gain with interval in percentage points, `gains[label]` `[tasks, 3]`."""
    fig, ax = new_figure(width=8, height=0.9 + 0.62 * len(names))
    colors = [COLORS[c] for c in ("target", "neighbour", "general", "accent")]
    for i, (label, found) in enumerate(gains.items()):
        at = np.arange(len(names)) + (i - (len(gains) - 1) / 2) * 0.18
        middle, low, high = 100 * found.T
        error = np.stack([middle - low, high - middle])
        ax.errorbar(middle, at, xerr=error, fmt="osD^"[i % 4], ms=5, color=colors[i % 4], label=label)
    ax.axvline(0, color=COLORS["ink"], lw=0.8)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    finish(ax, title, "percentage points more right, at equal mean depth (95 % interval)")
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def token_points(rows: Sequence[Mapping[str, str]]) -> dict[tuple[str, str], np.ndarray]:
    """What `plot_tokens` takes, from the table of the experiment `early_exit`; every rule in the order of its depth."""
    cells: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for r in rows:
        if r["concept"] == "tokens":
            knobs = cells.setdefault((r["method"], r["attack"]), {})
            knobs.setdefault(r["budget"], {})[r["metric"]] = float(r["value"])
    return {
        rule: np.array(sorted((k["depth"], k["agreement"], np.exp(k["log_perplexity_ratio"])) for k in knobs.values()))
        for rule, knobs in cells.items()
    }


def plot_tokens(found: dict[tuple[str, str], np.ndarray], title: str) -> Figure:
    """Agreement and perplexity ratio against depth: `found[rule, "copied" or "kept"]` `[knobs, 3]`."""
    fig, panels = new_figure(1, 2, width=9.5, height=3.4, squeeze=False)
    axes = panels[0]
    colors = {"layer": COLORS["ink"], "confidence": COLORS["neighbour"], "patience": COLORS["second"]}
    names = {"layer": "fixed exit", "confidence": "confidence", "patience": "patience"}
    for (rule, how), values in found.items():
        depth, agreement, ratio = np.asarray(values).T
        style = "o-" if how == "copied" else "o:"
        for ax, y in zip(axes, (agreement, ratio), strict=True):
            ax.plot(depth, y, style, ms=4, color=colors[rule], label=f"{names[rule]}, {how}")
    axes[1].set_yscale("log")
    finish(axes[0], "Same first guess as the whole model", "mean layers used", "share of tokens")
    finish(axes[1], "Perplexity over the whole model's", "mean layers used", "ratio (log scale)")
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, frameon=False, fontsize=9, loc="outside lower center", ncols=3)
    fig.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
    return fig


def plot_facts(memorised: np.ndarray, lost: np.ndarray, n_layers: int, title: str) -> Figure:
    """One dot per fact `[n]`: from which layer on it leads, against what an edit costs it; medians of six groups."""
    fig, ax = new_figure(width=7.2, height=3.4)
    jitter = np.random.default_rng(0).uniform(-0.3, 0.3, len(memorised))  # whole layers would hide each other
    ax.plot(memorised + jitter, lost, "o", ms=4, alpha=0.35, color=COLORS["neighbour"], label="a fact")
    groups = [g for g in np.array_split(np.argsort(memorised, kind="stable"), 6) if len(g)]
    middle = np.array([[memorised[g].mean(), np.median(lost[g])] for g in groups])
    ax.plot(middle[:, 0], middle[:, 1], "s-", ms=7, color=COLORS["target"], label="median of a sixth of the facts")
    ax.axhline(0, color=COLORS["ink"], lw=0.8)
    ax.set_xlim(0, n_layers + 1)
    finish(ax, title, "memorised layer of the fact (logit lens)", "lost under the edit (nats)")
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    return fig


def places(stops: Sequence[Stops]) -> tuple[np.ndarray, np.ndarray]:
    """Mean depths and accuracies of several results, for `plot_tradeoff`."""
    return np.array([s.mean_depth for s in stops]), np.array([s.accuracy for s in stops])
