"""What notebook 03 measures of labels beside the long table: hard negatives, weak firings, reading against writing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from ..autointerp import FeatureLabel, Label, LabelJudge, Labelling, UnitExamples, unit_examples
from ..core import ConceptLabError, auroc_interval

Build = Callable[[Tensor, Tensor, Tensor], Int[Tensor, " n"]]  # hard negatives: (token_ids, on, off) -> places or -1


def hard_score(
    bench: Labelling,
    judge: LabelJudge,
    label: Label,
    examples: UnitExamples,
    build: Build,
    auroc: Callable[[Tensor, Tensor], Tensor],
) -> tuple[float, float, int]:
    """AUROC of held-out firings against the hard negatives that `build` finds for them, and how many it found.

    Between the two stands the AUROC of the same firings against random contexts, since not every firing has a hard
    negative. `nan` where it found none.
    """
    on = torch.tensor([e.index for e in examples.spread])
    off = ((bench.firings.dense(examples.unit) == 0) & bench.halves[1]).nonzero()[:, 0]
    partner = build(bench.corpus.token_ids, on, off)
    fires = [e for e, place in zip(examples.spread, partner.tolist(), strict=True) if place >= 0]
    if not fires:
        return float("nan"), float("nan"), 0
    hard = bench.corpus.examples(partner[partner >= 0], "hard")
    scores = judge.judge(label, fires)
    beside_hard, beside_silent = (float(auroc(scores, judge.judge(label, x))) for x in (hard, examples.silent))
    return beside_hard, beside_silent, len(fires)


def by_strength(
    bench: Labelling, judge: LabelJudge, labels: Sequence[Label], shift: int = 0, n: int = 120, seed: int = 2
) -> list[list[float]]:
    """Detection AUROC of every label on the quarters of all held-out firings of its unit, weakest quarter first.

    `shift`: which label reads a unit's contexts, counted from its own; 1 gives shuffled labels.
    """
    quarters: list[list[float]] = [[], [], [], []]
    for i, own in enumerate(labels):
        new = unit_examples(bench.corpus, bench.firings, own.unit, bench.halves[1], n, strong=1.0, seed=seed)
        weakest_first = sorted(new.spread, key=lambda e: e.activation)
        label = labels[(i + shift) % len(labels)]
        scores, silent = judge.judge(label, weakest_first), judge.judge(label, new.silent)
        for quarter, part in zip(quarters, scores.tensor_split(4), strict=True):
            quarter.append(auroc_interval(part, silent, 50).value)
    return quarters


def promotes_what_it_reads(records: Sequence[FeatureLabel], shift: int = 0) -> list[float]:
    """1 for every feature whose promoted tokens hold one that it fires on, else 0; `shift`: another's promoted tokens.

    Case and spaces do not matter; single characters are left out.
    """

    def plain(items: Sequence[str]) -> set[str]:
        return {t.strip().lower() for t in items if len(t.strip()) > 1}

    others = [*records[shift:], *records[:shift]]
    return [float(bool(plain(a.top_tokens) & plain(b.promoted))) for a, b in zip(records, others, strict=True)]


def stored_numbers(table: Sequence[Mapping[str, str]]) -> Callable[..., tuple[float, float, float]]:
    """`numbers(method, metric, judge, budget)` of a table that `autointerp` made: value and both ends."""

    def numbers(
        method: str, metric: str = "detection_auroc", judge: str = "evidence", budget: object = "all"
    ) -> tuple[float, float, float]:
        wanted = {"method": method, "metric": metric, "attack": judge, "budget": str(budget)}
        row = next((r for r in table if all(r[key] == value for key, value in wanted.items())), None)
        if row is None:
            raise ConceptLabError(f"The table holds no {metric} of {method} under {judge} ({budget}).")
        return float(row["value"]), float(row["low"]), float(row["high"])

    return numbers
