"""Further questions to a label: which token is it (fuzzing), how strongly (simulation), who does not belong (intruder).

All take any judge, a label and the held-out examples of one unit, made with activations, and return a number with its
95 % bootstrap interval. Terms as in Paulo et al. (arXiv 2410.13928); simulation as in Bills et al. (2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from ..core import (
    ConceptLabError,
    Interval,
    auroc_draws,
    auroc_interval,
    bootstrap,
    correlation_interval,
    draws_interval,
)
from .examples import Example, UnitExamples
from .explain import Label
from .judge import LabelJudge


def detection(
    judge: LabelJudge, label: Label, examples: UnitExamples, n: int = 100, n_resamples: int = 2_000, seed: int = 0
) -> Interval:
    """AUROC of `n` firing against `n` silent contexts. With an `EmbeddingJudge` this is the embedding scorer.

    `detect` gives the same number for many units at once, with the shuffled control beside it.
    """
    firing, silent = (judge.judge(label, side[:n]) for side in (examples.spread, examples.silent))
    return auroc_interval(firing, silent, n_resamples, seed)


def fuzzing(
    judge: LabelJudge, label: Label, examples: UnitExamples, n: int = 100, n_resamples: int = 2_000, seed: int = 0
) -> Interval:
    """AUROC of rightly against wrongly marked tokens of the same contexts; 0.5 is chance.

    In each of `n` firing contexts the token at which the unit fires is judged, and another token of the window, drawn
    among those where it is silent. Resampled are whole contexts. Contexts in which it fires on every token are left
    out; raises ConceptLabError when none remains.
    """
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for context in examples.spread[:n]:
        silent = [p for p in measured(context) if context.activations[p] == 0]
        if silent:
            wrong = silent[int(torch.randint(len(silent), (1,), generator=generator))]
            pairs.append((context, replace(context, place=wrong)))
    if not pairs:
        raise ConceptLabError(f"Unit {examples.unit} fires on every token of its contexts; none can be marked wrongly.")
    scores = judge.judge(label, [c for pair in pairs for c in pair])
    pair_of = torch.arange(len(pairs)).repeat_interleave(2)
    draws = auroc_draws(scores, torch.arange(len(scores)) % 2 == 0, pair_of, n_resamples, seed)
    return draws_interval(draws, len(pairs))


def simulation(
    judge: LabelJudge, label: Label, examples: UnitExamples, n: int = 20, n_resamples: int = 2_000, seed: int = 0
) -> Interval:
    """Pearson's r between the judge's number for every token of a context and the unit's activation there.

    Over all tokens of `n` contexts, half of them around strong firings and half around silent tokens; resampled are
    whole contexts. 0 where the judge says the same everywhere.
    """
    chosen = [*examples.spread[: n - n // 2], *examples.silent[: n // 2]]
    places = [(i, p) for i, context in enumerate(chosen) for p in measured(context)]
    predicted = judge.judge(label, [replace(chosen[i], place=p) for i, p in places])
    true = torch.tensor([chosen[i].activations[p] for i, p in places])
    return correlation_interval(predicted, true, torch.tensor([i for i, _ in places]), n_resamples, seed)


def intruder(
    judge: LabelJudge, label: Label, examples: UnitExamples, n: int = 25, n_resamples: int = 2_000, seed: int = 0
) -> Interval:
    """Share of `n` line-ups in which the silent one among five contexts gets the smallest number; 0.2 is chance.

    Four contexts of a line-up are firings, and no context stands in two line-ups. A tie for the smallest counts as a
    guess among the tied. Unlike in the paper the judge has the label: the label is what is scored.
    """
    n = min(n, len(examples.spread) // 4, len(examples.silent))
    if not n:
        raise ConceptLabError(f"A line-up needs four firing contexts; unit {examples.unit} has fewer.")
    firing, silent = examples.spread[: 4 * n], examples.silent[:n]
    scores = judge.judge(label, [*firing, *silent])
    line_ups = torch.cat([scores[: 4 * n].view(n, 4), scores[4 * n :, None]], 1)
    smallest = line_ups == line_ups.amin(1, keepdim=True)
    return bootstrap(smallest[:, 4].double() / smallest.sum(1), n_resamples, seed)


SCORERS: dict[str, Callable[..., Interval]] = {
    "fuzzing_auroc": fuzzing,
    "simulation_r": simulation,
    "intruder_accuracy": intruder,
}


def score_label(
    judge: LabelJudge, label: Label, examples: UnitExamples, n_resamples: int = 2_000, **sizes
) -> dict[str, Interval]:
    """Every scorer of `SCORERS` on one unit; a question that its examples cannot answer is left out.

    `sizes`: contexts per scorer by metric, e.g. `fuzzing_auroc=20` for a judge that is dear.
    """
    found = {}
    for metric, scorer in SCORERS.items():
        size = {"n": sizes[metric]} if metric in sizes else {}
        try:
            found[metric] = scorer(judge, label, examples, n_resamples=n_resamples, **size)
        except ConceptLabError:
            continue
    return found


def measured(context: Example) -> list[int]:
    """Places of a window whose activation is known: the first token of a row was not harvested.

    Raises ConceptLabError for a context without activations.
    """
    if not context.activations:
        raise ConceptLabError("This scorer needs contexts with activations; make them with `unit_examples`.")
    return [p for p in range(len(context.tokens)) if context.pos - context.place + p > 0]


def first_contexts(examples: UnitExamples, n: int) -> UnitExamples:
    """The first `n` of every kind: fewer contexts for a judge that is dear."""
    e = examples
    return replace(e, top=e.top[:n], spread=e.spread[:n], silent=e.silent[:n], matched=e.matched[:n], hard=e.hard[:n])
