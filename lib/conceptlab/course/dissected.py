"""Tables of notebook 07 from the table of dissections: every edit and every subject that it holds, as it grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from ..core import POOLED, Interval
from .tables import Grid

NAMED = {  # edits of the table, in the order of the notebook's tables, and what they are called there
    "gradient_difference": "training", "random_norm": "noise, equal length", "random_damage": "noise, equal loss",
    "random_own": "noise, equal distance", "npo": "NPO", "dpo": "DPO", "pisces": "PISCES",
    "pisces_random": "noise in PISCES' vectors",
}  # fmt: skip
MINUS = {"random": "noise of equal loss", "random_own": "noise of equal distance"}
EMPTY = "\u2013"
NO_OWN = "pisces_random"  # an edit whose damage on the model's own answers was not taken apart


@runtime_checkable
class Dissected(Protocol):
    """What these tables ask the table of dissections (`experiments.DissectionTable`) for."""

    def __contains__(self, key: tuple[str, str, str, str, str]) -> bool: ...
    def get(self, concept: str, edit: str, way: str, layers: str = ..., metric: str = ...) -> Interval: ...
    def shares(self, concept: str, edit: str, way: str, metric: str = ...) -> dict[str, Interval]: ...
    def concepts(self) -> list[str]: ...


def edits_of(table: Dissected, concept: str, way: str = "gold/damage", layers: str = "", metric: str = "") -> list[str]:
    """Edits of a subject that have a number, in the order of NAMED."""
    metric = metric or ("gold_lost" if way == "gold/damage" else "kl")
    return [edit for edit in NAMED if (concept, edit, way, layers, metric) in table]


def damage_grid(table: Dissected) -> Grid:
    """Every edit of every subject: how long it is, and how far it is from the original by both protocols."""
    measures, rows = (("gold/damage", "gold_lost"), ("own/damage", "mse"), ("own/damage", "kl")), []
    for subject in table.concepts():
        for edit in edits_of(table, subject):
            length = table.get(subject, edit, "own/damage", "", "relative_norm")
            found = [table.get(subject, edit, way, "", metric) for way, metric in measures]
            rows.append((_plain(subject), NAMED[edit], f"{length.value:.2%}" if length.measurable else EMPTY,
                         *map(_value, found)))  # fmt: skip
    columns = ["subject", "edit", "weights moved by", "right answers lose (nats)", "own answers: squared distance",
               "own answers: KL (nats)"]  # fmt: skip
    return Grid(rows, columns, "How far every edit is from the original, by three measures")


# ---- parts --------------------------------------------------------------------------------------------------
def accumulated_grid(table: Dissected, concept: str, edits: Sequence[str], metric: str = "kl") -> Grid:
    """Coefficients of a window, of it and all later ones, of it and all earlier ones; attention, and both, of a window.
    Layers that stand alone and all layers together are left out."""
    rows, names = [], list(table.shares(concept, edits[0], "gold/back/coefficients", metric))[:-2]
    last = max((int(n.split("-")[1]) for n in names), default=0)
    spans = {
        "coefficients": ("coefficients", {n: n for n in names}),
        "coefficients, and of all later layers": ("coefficients", {n: f"{n.split('-')[0]}-{last}" for n in names}),
        "coefficients, and of all earlier layers": ("coefficients", {n: f"0-{n.split('-')[1]}" for n in names}),
        "attention": ("attention", {n: n for n in names}),
        "both, attention and coefficients": ("both", {n: n for n in names}),
    }
    for edit in edits:
        for told, (part, places) in spans.items():
            found = [table.get(concept, edit, f"gold/back/{part}", layers, metric) for layers in places.values()]
            if any(x.measurable for x in found):
                rows.append((NAMED[edit], told, *map(_value, found)))
    title = f"{_plain(concept).capitalize()}, right answers: share of the {metric.upper()} distance taken back"
    return Grid(rows, ["edit", "put back", *names], title)


def gaps_grid(table: Dissected, ways: Sequence[tuple[str, str]], metric: str = "kl") -> Grid:
    """Every edit minus its noise, subject by subject, and over subjects where three or more have it."""
    rows = []
    for edit in NAMED:
        for suffix, noise in MINUS.items():
            mine = [(way, layers) for way, layers in ways if way.startswith("own") == (suffix == "random_own")]
            for subject in [*table.concepts(), POOLED]:
                found = [table.get(subject, f"{edit}-{suffix}", way, layers, metric) for way, layers in mine]
                if any(x.measurable for x in found):
                    cells = {w: str(x) if x.measurable else EMPTY for w, x in zip(mine, found, strict=True)}
                    n = len(_subjects(table, f"{edit}-{suffix}", mine[0], metric))
                    name = f"all {n} subjects" if subject == POOLED else _plain(subject)
                    rows.append(
                        (
                            NAMED[edit],
                            NAMED[NO_OWN] if edit == "pisces" else noise,
                            name,
                            *(cells.get(w, "") for w in ways),
                        )
                    )
    columns = ["edit", "minus", "subject", *(f"{way.replace('/', ', ')}, {layers}" for way, layers in ways)]
    return Grid(rows, columns, f"Shares of the {metric.upper()} distance, edit minus noise, same questions")


def gaps_reading(
    table: Dissected, ways: Sequence[tuple[str, str]], edit: str = "gradient_difference", metric: str = "kl"
) -> str:
    """For how many subjects a share is surely larger after an edit than after noise, surely smaller, or open."""
    lines = []
    for way, layers in ways:
        name = f"{edit}-{'random_own' if way.startswith('own') else 'random'}"
        found = {s: table.get(s, name, way, layers, metric) for s in _subjects(table, name, (way, layers), metric)}
        more, less = [s for s, x in found.items() if x.low > 0], [s for s, x in found.items() if x.high < 0]
        told = f"{way.replace('/', ', ')}, {layers}: surely more in {len(more)}, surely less in {len(less)}"
        told += f" of {len(found)} subjects"
        over = table.get(POOLED, name, way, layers, metric)
        lines.append(told + (f"; over subjects {over}" if over.measurable else ""))
    return f"{NAMED[edit].capitalize()} minus noise. " + ".\n".join(lines) + "."


# ---- weights ------------------------------------------------------------------------------------------------
def span_grid(table: Dissected) -> Grid:
    """The change of value vectors divided: inside the span of the concept's vectors, and outside it."""
    rows = []
    for subject in table.concepts():
        for edit in edits_of(table, subject, "span", "concept", "share"):
            share, chance, inside, outside = (
                table.get(subject, edit, "span", "concept", m)
                for m in ("share", "chance", "inside_lost", "outside_lost")
            )
            rand = [table.get(subject, edit, "span", "random", m) for m in ("share", "inside_lost")]
            whole = table.get(subject, edit, "gold/damage", "", "gold_lost")
            shares = [f"{x.value:.4f}" if x.measurable else EMPTY for x in (share, chance, rand[0])]
            rows.append((_plain(subject), NAMED[edit], *shares, *map(_nats, (inside, rand[1], outside, whole))))
    columns = ["subject", "edit", "in the concept's span", "by chance", "in a random span", "that part alone costs",
               "random span alone", "all but that part costs", "whole edit"]  # fmt: skip
    return Grid(rows, columns, "Share of the squared change of value vectors, and nats that right answers lose")


def parts_grid(table: Dissected) -> Grid:
    """Every edit that has it: nats lost by a part of its length, and what undoing a stretch of layers takes back."""
    rows: list[tuple[str, ...]] = []
    stretches: list[str] = []
    scales = {"\u00bc of it": "0.25", "\u00bd": "0.5", "\u00be": "0.75"}
    for subject in table.concepts():
        for edit in edits_of(table, subject, "scale", "0.25", "gold_lost"):
            found = [table.get(subject, edit, "scale", s, "gold_lost") for s in scales.values()]
            whole, back = table.get(subject, edit, "gold/damage", "", "gold_lost"), _stretches(table, subject, edit)
            stretches = stretches or list(back)
            rows.append((_plain(subject), NAMED[edit], *map(_value, (*found, whole)),
                         *(_value(back[n]) if n in back else EMPTY for n in stretches)))  # fmt: skip
    columns = ["subject", "edit", *scales, "whole", *(f"undo {n}" for n in stretches)]
    return Grid(rows, columns, "Nats lost by a part of the edit; share taken back by undoing a stretch of layers")


def _stretches(table: Dissected, subject: str, edit: str) -> dict[str, Interval]:
    found = table.shares(subject, edit, "gold/back/weights")
    return {n: x for n, x in list(found.items())[:-2]}


def _subjects(table: Dissected, edit: str, place: tuple[str, str], metric: str) -> list[str]:
    return [s for s in table.concepts() if table.get(s, edit, *place, metric).measurable]


def _plain(concept: str) -> str:
    return concept.replace("_", " ")


def _value(x: Interval) -> str:
    return f"{x.value:.2f}" if x.measurable else EMPTY


def _nats(x: Interval) -> str:
    return f"{x.value:.3f}" if x.measurable else EMPTY
