"""Differences to the random control of equal damage, per concept, and everything over concepts."""

from __future__ import annotations

from typing import Any

import torch

from ...core import POOLED, Cell, Interval, Store
from ...dissection import DISTANCES, Distances, share_taken_back
from .edits import CONTROLS, OWN_CONTROLS

TESTED = ("mse", "kl", "gold")  # measures of the differences
Three = tuple[Distances, Distances, Distances]  # original, edited, treated


def pool_dissections(store: Store) -> None:
    """Rows `edit-random` (`-random_own`) of every concept, and of the concept "all" where three or more have them."""
    keys = {(r["concept"], r["method"], r["attack"], r["budget"]) for r in store.rows if r["seed"] == str(store.seed)}
    plain = [k for k in keys if k[2].count("/") == 2 and k[0] != POOLED and "-random" not in k[1]]
    concepts = sorted({k[0] for k in plain})
    found: dict[Cell, dict[str, Interval]] = {}
    for method, attack, budget in sorted({k[1:] for k in plain}):
        turned = "/into/" in attack
        mine = {c: _three(store, Cell(c, method, attack, budget)) for c in concepts}
        if len(whole := {c: a for c, a in mine.items() if a}) >= 3:
            found[Cell(POOLED, method, attack, budget)] = _shares(whole, None, turned)
        for suffix, controls in (("random", CONTROLS), ("random_own", OWN_CONTROLS)):
            other = {c: _three(store, Cell(c, controls.get(method, ""), attack, budget)) for c in whole}
            both = {c: b for c, b in other.items() if b}
            for c, b in both.items():
                found[Cell(c, f"{method}-{suffix}", attack, budget)] = _shares({c: whole[c]}, {c: b}, turned)
            if len(both) >= 3:
                paired = {c: whole[c] for c in both}
                found[Cell(POOLED, f"{method}-{suffix}", attack, budget)] = _shares(paired, both, turned)
    store.add_all({cell: numbers for cell, numbers in found.items() if numbers})


def _three(store: Store, cell: Cell) -> Three | None:
    damage = store.record(Cell(cell.concept, cell.method, f"{cell.attack.split('/')[0]}/damage"))
    treated = store.record(cell)
    if damage is None or treated is None:
        return None
    return _read(damage["whole"]), _read(damage["lost"]), _read(treated)


def _read(record: dict[str, Any]) -> Distances:
    return Distances(**{m: torch.tensor(record[m], dtype=torch.float64) for m in DISTANCES})


def _shares(mine: dict[str, Three], other: dict[str, Three] | None, turned: bool) -> dict[str, Interval]:
    """Shares taken back (brought in, where `turned`), or differences of shares, of one concept or over concepts."""
    groups = None
    if len(mine) > 1:
        sizes = [len(three[0].mse) for three in mine.values()]
        groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    a = _joined(mine)
    b = None if other is None else _joined(other)
    found = {m: share_taken_back(*a, m, groups, b) for m in (DISTANCES if other is None else TESTED)}
    top = 0.0 if other is not None else 1.0
    if turned:
        found = {m: Interval(top - x.value, top - x.high, top - x.low, x.n, x.over) for m, x in found.items()
                 if x.measurable}  # fmt: skip
    return {m: x for m, x in found.items() if x.measurable}


def _joined(parts: dict[str, Three]) -> Three:
    return tuple(  # type: ignore[return-value]
        Distances(**{m: torch.cat([getattr(three[i], m) for three in parts.values()]) for m in DISTANCES})
        for i in range(3)
    )
