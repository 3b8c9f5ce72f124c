"""Masking cells: one concept, one set of vectors, one share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...core import Cell, NotPossible, Store, bootstrap, mean_interval, paired_bootstrap, say
from ...evaluation import ask, gold_logprobs, score_questions
from ...specialisation import (
    Masking,
    differential,
    equally_active,
    gap_interval,
    most_specific,
    overlap,
    question_activity,
    random_neurons,
    score_interval,
    shuffled_groups,
    stems,
    without_words,
    wordless,
)
from .bench import MAIN, Bench, Known, point, rounded

STAGES = {  # what `methods` chooses from, in the order in which they are run
    "main": ("own", "equal", "random", "permuted"),
    "words": ("masked", "words"),
    "precise": (),  # own and equal on every other known question of the concept
    "per_layer": ("own", "equal"),  # as many vectors of every layer, whatever other layers hold
    "curves": ("own", "equal", "random"),
    "teach": (),
}
CLUED = ("own", "equal", "masked", "words")  # asked for without subject words, too
SCORED = ("own", "random")  # at MAIN with all options, for the score in accuracy and the margin


def mask_concept(bench: Bench, name: str, stage: str) -> None:
    shares = [s for s in bench.config.shares if s != MAIN] if stage == "curves" else [MAIN]
    kind = stage if stage == "per_layer" else ""
    grid = [Cell(name, m, kind, s) for s in shares for m in STAGES[stage]]
    clues = [Cell(name, m, "clues", MAIN) for m in CLUED if stage == "words"]
    more = [Cell(name, m, "precise", MAIN) for m in ("own", "equal") if stage == "precise"]
    if not any(map(bench.store.missing, [*grid, *clues, *more])):
        return
    rankings = _rankings(bench, name, ("masked", "words") if stage == "words" else ())
    if stage == "main":
        _overlap(bench, name)
    known = bench.asked(name)
    if known.n_own < 2:
        say(f"{name}: {known.n_own} of its test questions are known; what masking costs cannot be measured.")
        return
    for cell in filter(bench.store.missing, grid):
        mask = _set(bench, name, rankings, cell)
        if mask is not None:
            _masked(bench, cell, mask, known)
    _clues(bench, name, rankings, clues)
    _precise(bench, name, rankings, more)
    _contrasts(bench.store, name, bench.config.shares)


def _rankings(bench: Bench, name: str, read: Sequence[str]) -> dict[str, Float[Tensor, "layers d_mlp"]]:
    """Scores of all vectors, by what the ranking reads."""
    words = bench.subject(name)
    names = list(bench.concepts)
    group = shuffled_groups([len(bench.dev(n)) for n in names], bench.store.seed)[names.index(name)]
    everything = torch.cat([bench.activity[n] for n in names])
    rest = torch.ones(len(everything), dtype=torch.bool)
    rest[group] = False
    texts = {
        "masked": without_words(stems(bench.dev(name)), words),
        "words": [f"The {w}" for w in bench.concepts[name].words[: bench.config.n_dev]],
    }
    found = {
        kind: bench.scores(name, question_activity(bench.lm, rows)) for kind, rows in texts.items() if kind in read
    }
    own, permuted = bench.scores(name, bench.activity[name]), differential(everything[group], everything[rest])
    return found | {"own": own, "permuted": permuted}


def _set(bench: Bench, name: str, rankings: dict[str, Tensor], cell: Cell) -> Bool[Tensor, "layers d_mlp"] | None:
    """The vectors that a cell masks; None where the control cannot be made."""
    own = most_specific(rankings["own"], float(cell.budget), per_layer=cell.attack == "per_layer")
    try:
        if cell.method == "equal":
            return equally_active(own, bench.activity[name].mean(0), bench.store.seed)
        if cell.method == "random":
            return random_neurons(own, bench.store.seed)
    except NotPossible as error:
        say(f"{name}, {cell.method} at {cell.budget}: {error}")
        return None
    return own if cell.method == "own" else most_specific(rankings[cell.method], float(cell.budget))


def _masked(bench: Bench, cell: Cell, mask: Tensor, known: Known) -> None:
    """What masking costs (nats per token of the right answer): the concept, the others, and the gap between them."""
    with Masking(mask).applied(bench.lm):
        scored = cell.method in SCORED and cell.budget == MAIN and not cell.attack
        after = score_questions(bench.lm, known.questions) if scored else None
        gold = after.gold if after else gold_logprobs(bench.lm, known.questions)
    own, others = known.parts(known.gold - gold)
    numbers = {
        "own_cost": bootstrap(own), "other_cost": bootstrap(others), "gap": gap_interval(own, others),
        "vectors": point(float(mask.sum())), "mean_layer": point(float(mask.nonzero()[:, 0].double().mean())),
    }  # fmt: skip
    if after:
        mine, theirs = known.parts(after.correct.double())
        numbers |= {"score": score_interval(torch.ones_like(theirs), theirs, mine)}  # all are right before
        numbers |= {"margin_gap": gap_interval(*known.parts(known.margin - after.margin))}
        numbers |= {"own_right": bootstrap(mine), "other_right": bootstrap(theirs)}
    record = {"own": rounded(own), "others": rounded(others), "layers": mask.sum(1).tolist()}
    bench.store.add(cell, numbers, record=record)
    which = " ".join(filter(None, (cell.method, cell.attack)))
    say(f"{cell.concept}, {which} at {cell.budget}: own {numbers['own_cost']}, others {numbers['other_cost']}")


def _clues(bench: Bench, name: str, rankings: dict[str, Tensor], cells: Sequence[Cell]) -> None:
    """The same sets on facts of the concept asked for without a subject word."""
    if not any(map(bench.store.missing, cells)):
        return
    asked = wordless(bench.concepts[name].test, bench.subject(name))
    known = ask(bench.lm, asked, 18).known(10)
    for cell in filter(bench.store.missing, cells):
        mask = _set(bench, name, rankings, cell)
        if mask is not None:
            with Masking(mask).applied(bench.lm):
                cost = known.scores.gold - gold_logprobs(bench.lm, known.questions)
            bench.store.add(cell, {"own_cost": bootstrap(cost)}, record={"own": rounded(cost)})


def _precise(bench: Bench, name: str, rankings: dict[str, Tensor], cells: Sequence[Cell]) -> None:
    """All known questions of the concept: those of the main cells, and here the others, for narrower intervals."""
    rest = list(bench.known(name).values())[bench.config.n_own :]
    for cell in filter(bench.store.missing, cells):
        first, mask = bench.store.record(Cell(name, cell.method, budget=MAIN)), _set(bench, name, rankings, cell)
        if first is None or mask is None:
            continue
        cost = torch.tensor(first["own"])
        if rest:
            with Masking(mask).applied(bench.lm):
                after = gold_logprobs(bench.lm, [q for q, _, _ in rest])
            cost = torch.cat([cost, torch.tensor([gold for _, gold, _ in rest]) - after])
        bench.store.add(cell, {"own_cost": bootstrap(cost)}, record={"own": rounded(cost)})


def _contrasts(store: Store, name: str, shares: Sequence[float]) -> None:
    """The concept's vectors minus equally active ones, question by question, and minus the other controls."""
    for kind, share, rivals in [("", s, ("equal", "random")) for s in shares] + [
        (kind, MAIN, ("equal",)) for kind in ("clues", "precise", "per_layer")
    ]:
        mine = store.record(Cell(name, "own", kind, share))
        for rival in rivals + (("permuted", "words") if share == MAIN and not kind else ()):
            theirs = store.record(Cell(name, rival, kind, share))
            if mine and theirs:
                numbers = {"own_cost": paired_bootstrap(mine["own"], theirs["own"])}
                if "others" in mine:
                    a, b = ([x - y for x, y in zip(mine[k], theirs[k], strict=True)] for k in ("own", "others"))
                    numbers["gap"] = gap_interval(torch.tensor(a), torch.tensor(b))
                store.add(Cell(name, f"own-{rival}", kind, share), numbers)


def _overlap(bench: Bench, name: str, share: float = 0.01) -> None:
    """How much of the concept's set is in the other concepts' sets, and between the two halves of its questions."""
    if not bench.store.missing(Cell(name, "overlap")):
        return
    half = len(bench.activity[name]) // 2
    halves = [
        most_specific(bench.scores(name, bench.activity[name][s]), share) for s in (slice(half), slice(half, None))
    ]
    sets = [most_specific(bench.scores(n, a), share) for n, a in bench.activity.items()]
    row = overlap(sets)[list(bench.activity).index(name)]
    others = [x for n, x in zip(bench.activity, row.tolist(), strict=True) if n != name]
    numbers = {
        "within": point(float(overlap(halves)[0, 1])),
        "between": mean_interval(others),
        "chance": point(share),
    }
    bench.store.add(Cell(name, "overlap"), numbers, record=rounded(row))
