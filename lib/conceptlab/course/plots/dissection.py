"""Figures of notebook 07, from plain arrays and rows of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...core import Interval
from .diagrams import Diagram
from .style import COLORS, finish, new_figure, plain

PARTS = {  # part -> label, colour, marker
    "coefficients": ("coefficients", COLORS["target"], "o"),
    "attention": ("attention", COLORS["neighbour"], "s"),
    "values": ("value vectors", COLORS["general"], "^"),
    "both": ("coefficients and attention", COLORS["accent"], "D"),
    "weights": ("all weights of the layers", COLORS["ink"], "v"),
}
WindowRows = Mapping[str, Interval]  # "25-29" -> share


def diagram() -> Diagram:
    """Where unlearning may be, and what is put back."""
    alt = (
        "One MLP layer twice. On the left the original, on the right the unlearned model. In each, attention writes to "
        "the stream, keys turn the state into coefficients m, and the coefficients weigh the value vectors V. Three "
        "things can be carried from left to right: attention's output, the coefficients, or the value vectors. After "
        "each, one asks how much of the distance between the two models' predictions is gone."
    )
    d = Diagram(900, 330, alt)
    for left, name, color in ((10, "original model", "general"), (560, "unlearned model", "target")):
        d.label(left + 165, 22, name, color, 14, "middle")
        d.box(left, 40, 330, 44, "attention writes A", color)
        d.box(left, 120, 330, 44, "coefficients m (depend on the text)", color)
        d.box(left, 200, 330, 44, "value vectors V (weights)", color)
        d.box(left, 280, 330, 40, "logits z of the answer")
        d.arrow((left + 165, 84), (left + 165, 120)).arrow((left + 165, 164), (left + 165, 200))
        d.arrow((left + 165, 244), (left + 165, 280))
    for y, text, color in (
        (62, "put A back", "neighbour"),
        (142, "put m back", "target"),
        (222, "put V back", "general"),
    ):
        d.arrow((340, y), (560, y), color, dashed=True).label(450, y - 10, text, color, 13, "middle")
    d.label(450, 292, "how far apart?", size=13, anchor="middle").line([(340, 304), (560, 304)])
    return d


def plot_windows(
    curves: Mapping[str, WindowRows],
    title: str,
    y: str = "share of the distance taken back",
    controls: Sequence[str] = (),
) -> Figure:
    """One line per part over windows of layers. `curves`: "part" or "part, anything"; those in `controls` are dashed.

    The windows stand in the order of the first curve; those of one layer and of all layers stand apart, unconnected.
    """
    fig, ax = new_figure(width=9, height=3.9)
    names = list(next(iter(curves.values())))
    for k, (name, rows) in enumerate(curves.items()):
        _line(ax, name, rows, names, 0.07 * (k - (len(curves) - 1) / 2), name in controls)
    _frame(ax, names)
    finish(ax, title, "layers that are put back (window), the last layer alone, all layers", y)
    ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


def plot_panels(
    panels: Mapping[str, Mapping[str, WindowRows]], title: str, y: str, limits: tuple[float, float] | None = None
) -> Figure:
    """The same in one panel per name, side by side, with one legend. A value outside `limits` stands as a number at
    the edge."""
    fig, axes = new_figure(1, len(panels), width=min(4.7 * len(panels), 14.1), height=3.9, squeeze=False, sharey=True)
    for ax, (panel, curves) in zip(axes[0], panels.items(), strict=True):
        names = list(next(iter(curves.values())))
        for k, (name, rows) in enumerate(curves.items()):
            shift = 0.07 * (k - (len(curves) - 1) / 2)
            _line(ax, name, rows, names, shift, False)
            _outside(ax, rows, names, shift, PARTS[name.split(",")[0]][1], limits)
        _frame(ax, names)
        finish(ax, panel, "window of layers")
    if limits:
        axes[0, 0].set_ylim(*limits)
    axes[0, 0].set_ylabel(plain(y))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    fig.suptitle(plain(title), x=0.01, ha="left", fontweight="bold", fontsize=11)
    return fig


def _line(ax: Axes, name: str, rows: WindowRows, names: Sequence[str], shift: float, control: bool) -> None:
    label, color, marker = PARTS[name.split(",")[0]]
    label += name[len(name.split(",")[0]) :]
    shown = [n for n in names if n in rows and rows[n].measurable]
    at = np.array([names.index(n) + shift for n in shown])
    value = np.array([rows[n].value for n in shown])
    low = np.array([rows[n].low if rows[n].bounded else rows[n].value for n in shown])
    high = np.array([rows[n].high if rows[n].bounded else rows[n].value for n in shown])
    error = np.abs(np.stack([value - low, high - value])) if len(shown) else None
    fill, alpha = ("white", 0.6) if control else (color, 1.0)
    ax.errorbar(
        at, value, error, fmt=marker, color=color, ms=6, capsize=2, elinewidth=1, label=plain(label), mfc=fill,
        alpha=alpha,
    )  # fmt: skip
    windows = [i for i, n in enumerate(shown) if _is_window(n, names)]
    if windows:
        ax.plot(at[windows], value[windows], "--" if control else "-", color=color, lw=1.4, alpha=alpha)


def _outside(
    ax: Axes, rows: WindowRows, names: Sequence[str], shift: float, color: str, limits: tuple[float, float] | None
) -> None:
    """The numbers of points beyond the edges of the figure."""
    for i, name in enumerate(names):
        if limits and name in rows and rows[name].measurable and not limits[0] <= rows[name].value <= limits[1]:
            above = rows[name].value > limits[1]
            text, edge = f"{rows[name].value:.1f}", limits[1] if above else limits[0]
            offset, anchor = (2, -4 if above else 4), "top" if above else "bottom"
            ax.annotate(
                text, (i + shift, edge), xytext=offset, textcoords="offset points", va=anchor, fontsize=9, color=color
            )


def _is_window(name: str, names: Sequence[str]) -> bool:
    first, last = map(int, name.split("-"))
    widest = max(int(n.split("-")[1]) - int(n.split("-")[0]) for n in names)
    return 0 < last - first < widest or (first < last and len(names) == 1)


def _frame(ax: Axes, names: Sequence[str]) -> None:
    ax.axhline(0, color=COLORS["ink"], lw=0.8)
    ax.axhline(1, color=COLORS["ink"], lw=0.8, ls=":")
    labels = ["all" if n.startswith("0-") and not _is_window(n, names) else n for n in names]
    labels = [n.split("-")[0] if n.split("-")[0] == n.split("-")[-1] else n for n in labels]
    ax.set_xticks(range(len(names)), labels, fontsize=9)
    ax.grid(axis="x", visible=False)


def plot_moves(rows: Mapping[str, np.ndarray], title: str) -> Figure:
    """Relative change of the weights per layer in percent, one panel per edit: `[layers, 3]`."""
    fig, axes = new_figure(1, len(rows), width=3.6 * len(rows), height=3.2, squeeze=False)
    looks = (("attention", "attention", "s"), ("keys and gates", "coefficients", "o"), ("value vectors", "values", "^"))
    for ax, (edit, table) in zip(axes[0], rows.items(), strict=True):
        for i, (label, part, marker) in enumerate(looks):
            ax.plot(100 * np.asarray(table)[:, i], marker, ls="-", ms=4, color=PARTS[part][1], label=label)
        ax.set_ylim(bottom=0)
        finish(ax, edit, "layer")
    axes[0, 0].set_ylabel("change of the weights (%)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    fig.suptitle(plain(title), x=0.01, ha="left", fontweight="bold", fontsize=11)
    return fig


def plot_collateral(table: np.ndarray, edits: Sequence[str], others: Sequence[str], title: str) -> Figure:
    """Nats lost by known questions: a row per edit, a column per concept; the number stands in each field."""
    fig, ax = new_figure(width=10, height=1.6 + 0.42 * len(edits))
    top = float(np.nanmax(table))
    image = ax.imshow(table, vmin=0, vmax=top, cmap="OrRd", aspect="auto")
    for i, row in enumerate(table):
        for j, value in enumerate(row):
            if np.isfinite(value):
                dark = "white" if value > 0.6 * top else COLORS["ink"]
                ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=9, color=dark)
    ax.set_xticks(range(len(others)), list(map(plain, others)), rotation=30, ha="right", fontsize=9)
    ax.set_yticks(range(len(edits)), list(map(plain, edits)), fontsize=9)
    ax.grid(False)
    fig.colorbar(image, ax=ax, shrink=0.9, label="nats per token lost")
    finish(ax, title)
    return fig
