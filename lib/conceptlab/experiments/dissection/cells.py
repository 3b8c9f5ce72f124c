"""The cells of one edit: its damage, what each part takes back or brings in, where weights moved, what else is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...core import Cell, Interval, NotPossible, bootstrap, say
from ...dissection import (
    DISTANCES,
    TISSUES,
    Dissection,
    Distances,
    concept_span,
    in_span,
    inside_span,
    moved_by_layer,
    outside_span,
    random_span,
    share_taken_back,
)
from ...edits import WeightEdit
from ...evaluation import gold_logprobs
from .bench import PROTOCOLS, Bench, label, point, questions_of
from .edits import Edits

Metrics = dict[str, Interval]
OWN_PARTS = ("coefficients", "attention", "both", "values")
INTO = ("coefficients", "attention", "values", "weights")
CUMULATED = ("coefficients",)
SCALES = (0.25, 0.5, 0.75)


def dissect(bench: Bench, edits: Edits, method: str) -> None:
    """All cells of one edit that are missing. A random edit of equal norm has a damage and nothing to take back; one of
    equal distance on the original's own answers is compared there and nowhere else."""
    grid = _grid(bench, method)
    more = [Cell(bench.name, method, kind) for kind in ("moves", "span", "scale", "collateral")]
    wanted = {"random_norm": ("collateral",), "random_own": ()}.get(method, tuple(OTHERS))
    more = [cell for cell in more if cell.attack in wanted]
    damage = [Cell(bench.name, method, f"{protocol}/damage") for protocol in PROTOCOLS]
    todo = [cell for cell in [*damage, *grid, *[_last(bench, cell) for cell in more]] if bench.store.missing(cell)]
    if not todo:
        return
    try:
        edit = edits.get(method)
    except NotPossible as reason:
        say(f"{bench.name}, {method}: {reason}")
        return
    for protocol in PROTOCOLS:
        _protocol(bench, method, protocol, edit, [c for c in grid if c.attack.startswith(protocol)])
    for cell in more:
        if bench.store.missing(_last(bench, cell)):
            OTHERS[cell.attack](bench, cell, edit)


# ---- patching -----------------------------------------------------------------------------------------------
def _grid(bench: Bench, method: str) -> list[Cell]:
    if method == "random_norm":
        return []
    plan: list[tuple[str, Iterable[str], Sequence[tuple[int, int]]]] = []
    if method != "random_own":
        plan += [("gold/back", TISSUES, bench.windows), ("gold/back", CUMULATED, bench.cumulative)]
        plan.append(("gold/into", INTO, bench.windows))
    if method != "pisces_random":
        plan.append(("own/back", OWN_PARTS, bench.windows))
    found = [
        Cell(bench.name, method, f"{way}/{part}", label(*w)) for way, parts, ws in plan for part in parts for w in ws
    ]
    return list(dict.fromkeys(found))


def _protocol(bench: Bench, method: str, protocol: str, edit: WeightEdit, grid: Sequence[Cell]) -> None:
    """The damage, then part by part all windows at once."""
    damage = Cell(bench.name, method, f"{protocol}/damage")
    if not any(map(bench.store.missing, [damage, *grid])):
        return
    d = Dissection(bench.lm, edit, bench.forced[protocol], bench.traces[protocol])
    if bench.store.missing(damage):
        numbers = {m: bootstrap(getattr(d.lost, m)) for m in ("mse", "centred", "kl")}
        numbers["gold_lost"] = bootstrap(d.whole.gold - d.lost.gold)
        numbers["relative_norm"] = point(edit.report(bench.lm)["relative_norm"])
        record = {"whole": d.whole.rounded(), "lost": d.lost.rounded(), "answers": bench.forced[protocol].answers}
        bench.store.add(damage, numbers, record=record)
        say(f"{bench.name}, {method}, {protocol}: {numbers['gold_lost']} nats lost, KL {numbers['kl']}")
    for way in dict.fromkeys(cell.attack for cell in grid):
        cells = [c for c in grid if c.attack == way and bench.store.missing(c)]
        if not cells:
            continue
        _, direction, part = way.split("/")
        spans = [(int(a), int(b)) for a, b in (str(c.budget).split("-") for c in cells)]
        found = d.all_back(part, spans) if direction == "back" else [d.into(part, *s) for s in spans]
        shares = {c: _shares(d, x, direction) for c, x in zip(cells, found, strict=True)}
        bench.store.add_all(shares, {c: x.rounded() for c, x in zip(cells, found, strict=True)})
        say(f"{bench.name}, {method}, {way}: " + " ".join(f"{s['kl'].value:.2f}" for s in shares.values() if "kl" in s))


def _shares(d: Dissection, found: Distances, direction: str) -> Metrics:
    """Shares taken back; for the reverse direction shares of the damage that are brought in."""
    taken = {m: share_taken_back(d.whole, d.lost, found, m) for m in DISTANCES}
    if direction == "into":
        taken = {m: Interval(1 - x.value, 1 - x.high, 1 - x.low, x.n, x.over) for m, x in taken.items() if x.measurable}
    return {m: x for m, x in taken.items() if x.measurable}


# ---- weights ------------------------------------------------------------------------------------------------
def _last(bench: Bench, cell: Cell) -> Cell:
    """The cell that says that all of its kind are there."""
    budget: Any = {"moves": bench.lm.n_layers - 1, "span": "random", "scale": f"{SCALES[-1]:g}"}.get(cell.attack)
    if budget is None:
        budget = bench.other_names[-1]
    return cell._replace(budget=budget)


def _moves(bench: Bench, cell: Cell, edit: WeightEdit) -> None:
    rows = moved_by_layer(bench.lm, edit).tolist()
    kinds = ("attention", "mlp_in", "values")
    bench.store.add_all(
        {cell._replace(budget=i): dict(zip(kinds, map(point, row), strict=True)) for i, row in enumerate(rows)}
    )


def _span(bench: Bench, cell: Cell, edit: WeightEdit) -> None:
    """How much of the change of value vectors lies in the concept's directions, and what it does alone."""
    lm, k = bench.lm, bench.config.span
    vectors = [lm.value_vectors(v.layer)[v.neuron] for v in bench.shared.vectors(bench.config.n_vectors)]
    spans = {"concept": concept_span(torch.stack(vectors), k), "random": random_span(lm.d_model, k, bench.store.seed)}
    found = {}
    for name, span in spans.items():
        inside, rest = inside_span(lm, edit, span), outside_span(lm, edit, span)
        metrics = {"share": point(in_span(lm, edit, span)), "chance": point(k / lm.d_model)}
        metrics |= {"inside_lost": bootstrap(_lost(bench, inside)), "outside_lost": bootstrap(_lost(bench, rest))}
        found[cell._replace(budget=name)] = metrics
    bench.store.add_all(found)


def _scale(bench: Bench, cell: Cell, edit: WeightEdit) -> None:
    bench.store.add_all(
        {cell._replace(budget=f"{s:g}"): {"gold_lost": bootstrap(_lost(bench, edit * s))} for s in SCALES}
    )


def _lost(bench: Bench, edit: WeightEdit) -> Tensor:
    """Nats per token that each dissected right answer loses."""
    n = bench.config.n_questions
    with edit.applied(bench.lm):
        return bench.known.scores.gold[:n] - gold_logprobs(bench.lm, bench.known.questions[:n])


def _collateral(bench: Bench, cell: Cell, edit: WeightEdit) -> None:
    """What known questions of other concepts lose."""
    sets = list(bench.others.values())
    with edit.applied(bench.lm):
        now = gold_logprobs(bench.lm, questions_of(sets)).split([len(s.questions) for s in sets])
    lost = {name: s.scores.gold - x for (name, s), x in zip(bench.others.items(), now, strict=True)}
    bench.store.add_all(
        {cell._replace(budget=name): {"gold_lost": bootstrap(x)} for name, x in lost.items()},
        {cell._replace(budget=name): [round(float(v), 4) for v in x] for name, x in lost.items()},
    )
    say(f"{bench.name}, {cell.method}: others lose {float(torch.cat(list(lost.values())).mean()):.2f} nats")


OTHERS: Mapping[str, Callable[[Bench, Cell, WeightEdit], None]] = {
    "moves": _moves, "span": _span, "scale": _scale, "collateral": _collateral,
}  # fmt: skip
