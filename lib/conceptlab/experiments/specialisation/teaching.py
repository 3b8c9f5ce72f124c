"""Teaching cells: the same invented facts through five sets of vectors, all to the same loss."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...core import Cell, Interval, bootstrap, say
from ...data import held_out_passages
from ...evaluation import gold_logprobs, score_questions
from ...specialisation import (
    TeachingConfig,
    drift,
    equally_active,
    invented,
    most_specific,
    random_neurons,
    teach_through,
)
from .bench import Bench, point

ARMS = ("own", "equal", "random", "complement", "all")
TAUGHT = ("golf", "japan", "astronomy")  # concepts of the causal part
RATES = (3e-3, 1e-3, 5e-4)  # learning rates of the arms with few vectors: what an arm costs depends on it


def teach_concept(bench: Bench, name: str, cfg: TeachingConfig) -> None:
    """The same invented facts through five sets of vectors, all to the same loss; `budget` is the learning rate."""
    share, wide = bench.config.teach_share, [a for a in ARMS if a in ("complement", "all")]
    for seed in range(bench.config.teach_seeds):
        cells = [Cell(name, a, "teaching", rate, seed) for rate in RATES for a in ARMS if a not in wide]
        cells += [Cell(name, a, "teaching", cfg.lr_wide, seed) for a in wide]
        if any(map(bench.store.missing, cells)):
            sets = teaching_sets(bench.scores(name, bench.activity[name]), bench.activity[name].mean(0), share, seed)
            for cell in filter(bench.store.missing, cells):
                numbers = _taught(bench, name, sets[cell.method], replace(cfg, lr=float(cell.budget)), seed)
                bench.store.add(cell, numbers)
                shown = ", ".join(f"{k} {v.value:.2f}" for k, v in numbers.items())
                say(f"{name} taught through {cell.method} at {cell.budget}: {shown}")


def teaching_sets(
    scores: Float[Tensor, "layers d_mlp"], activity: Float[Tensor, "layers d_mlp"], share: float, seed: int = 0
) -> dict[str, Bool[Tensor, "layers d_mlp"]]:
    """The arms: the concept's vectors, as many equally active, as many random, all but the concept's, all."""
    own = most_specific(scores, share)
    found = [own, equally_active(own, activity, seed), random_neurons(own, seed), ~own, torch.ones_like(own)]
    return dict(zip(ARMS, found, strict=True))


def _taught(bench: Bench, name: str, mask: Tensor, cfg: TeachingConfig, seed: int) -> dict[str, Interval]:
    lm, lessons = bench.lm, invented(name, bench.config.n_people, seed)
    known, invented_questions = bench.asked(name), [*lessons.held_out, *lessons.untaught]
    before = score_questions(lm, invented_questions)
    made = teach_through(lm, lessons.taught, mask, cfg)
    with made.edit.applied(lm):
        after = score_questions(lm, invented_questions)
        own, others = known.parts(known.gold - gold_logprobs(lm, known.questions))
    n = len(lessons.held_out)
    share = [s.logprobs.softmax(1) for s in (before, after)]  # of the probability of the four answers
    certain = [s[n:].amax(1) for s in share]
    wrong = 1 - share[1][:n].gather(1, after.answers[:n, None])[:, 0]
    return {
        "loss": point(made.loss), "steps": point(made.steps), "reached": point(float(made.reached)),
        "vectors": point(float(mask.sum())), "right": bootstrap(after.correct[:n].double()),
        "right_before": bootstrap(before.correct[:n].double()), "wrong": bootstrap(wrong),
        "certain_untaught": bootstrap(certain[1] - certain[0]), "own_cost": bootstrap(own),
        "other_cost": bootstrap(others), "drift": bootstrap(drift(lm, made.edit, held_out_passages("test", 12))),
    }  # fmt: skip
