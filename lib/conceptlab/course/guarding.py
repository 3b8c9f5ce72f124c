"""Notebook 06's tables of two defences: run-time guards (what each takes, its false alarms, its latency, and that no
weight moves), and pruning after a relearning attack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attacks import AttackResult
from ..core import Interval, bootstrap, proportion
from ..data import Question
from ..edits import Intervention
from ..erasure import latency, prompt_of
from ..evaluation import score_questions
from ..models import LanguageModel
from .tables import Grid

ALARM = 0.05  # nats per token of the right answer; a question that moves further has been interfered with


@dataclass(frozen=True)
class Guarded:
    """One guard, measured; per set of questions the nats that each right answer loses."""

    lost: Mapping[str, Tensor]
    silent: float | None  # largest movement of a question whose prompt the detector lets pass; None: no detector
    slower: float  # time of scoring, as a multiple
    kept: bool  # whether every weight is what it was, to the bit, while the guard is on


@torch.no_grad()
def measured_guards(
    lm: LanguageModel, guards: Mapping[str, Intervention], sets: Mapping[str, Sequence[Question]], runs: int = 2
) -> dict[str, Guarded]:
    """Every guard on the same questions; the first set is the target."""
    before = {name: score_questions(lm, questions).gold for name, questions in sets.items()}
    weights, found = lm.fingerprint(), {}
    for label, guard in guards.items():
        with guard.applied(lm):
            lost = {name: before[name] - score_questions(lm, questions).gold for name, questions in sets.items()}
            kept = lm.fingerprint() == weights
        quiet: float | None = None
        if (detector := getattr(guard, "detector", None)) is not None:
            passes = [~detector.flags(lm, [prompt_of(lm, q) for q in questions]).cpu() for questions in sets.values()]
            moved = torch.cat([x.abs().cpu()[p] for x, p in zip(lost.values(), passes, strict=True)])
            quiet = float(moved.max()) if len(moved) else 0.0
        slower = latency(lm, guard, list(next(iter(sets.values())))[:2], runs=runs)
        found[label] = Guarded(lost, quiet, slower, kept)
    return found


def guard_grid(found: Mapping[str, Guarded]) -> Grid:
    """Nats lost set by set, false alarms on all sets but the first, latency, and whether the weights are the old."""
    names = list(next(iter(found.values())).lost)
    rows = []
    for label, x in found.items():
        alarms = [proportion(int((x.lost[k].abs() > ALARM).sum()), len(x.lost[k])) for k in names[1:]]
        rows.append((label, *(str(bootstrap(x.lost[k])) for k in names), *map(str, alarms), f"{x.slower:.1f} x",
                     "all" if x.kept else "changed"))  # fmt: skip
    columns = ["guard", f"{names[0]} loses", *names[1:], *(f"alarms: {k}" for k in names[1:]), "time", "weights left"]
    return Grid(rows, columns, "Nats lost; share of questions whose answer moves by more than .05 nats; latency")


def below_now(
    lm: LanguageModel, sets: Mapping[str, Sequence[Question]]
) -> Callable[[LanguageModel], dict[str, Interval]]:
    """A function that says how far a changed model's right answers lie below those of the model as it is now."""
    before = {name: score_questions(lm, questions).gold for name, questions in sets.items()}

    def lost(model: LanguageModel) -> dict[str, Interval]:
        return {name: bootstrap(before[name] - score_questions(model, q).gold) for name, q in sets.items()}

    return lost


def pruned_grid(result: AttackResult) -> Grid:
    """What `prune_after_relearning` found with `below_now`: pruned by use, beside as many weights at random."""
    names, rows = list(result.values[0]), []
    for i, (label, mine, other) in enumerate(zip(result.labels, result.values, result.controls, strict=True)):
        rows.append((label, *(str(mine[k]) for k in names), *(str(other[k]) if i else "" for k in names)))
    columns = ["down projections", *names, *(f"{name}, random weights" for name in names)]
    return Grid(rows, columns, "Pruning after relearning: nats that right answers lie below the original's")
