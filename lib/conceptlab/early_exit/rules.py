"""Rules that stop without a policy, and comparisons at equal mean depth.

Depths count layers from 1; an exit `t` (from 0) costs `t + 1` layers. The cost of exits and policies is left out, as in
the paper: with 12 classes an exit is 0.2 % of a layer of SmolLM2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core import ConceptLabError, Interval, bootstrap
from .heads import Exits


@dataclass(frozen=True)
class Stops:
    """Where each item stopped and whether it was answered rightly, in expectation where exits are drawn."""

    depth: Float[Tensor, " n"]  # layers used, from 1
    correct: Float[Tensor, " n"]  # 0 or 1, or a probability

    @property
    def mean_depth(self) -> float:
        return float(self.depth.mean())

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())


def stops(exits: Exits, at: Int[Tensor, " n"]) -> Stops:
    """What items get that leave at the layers `at` (from 0)."""
    right = exits.correct.gather(1, at[:, None])[:, 0]
    return Stops((at + 1).double(), right.double())


def confident_at(exits: Exits, threshold: float) -> Int[Tensor, " n"]:
    """The first exit whose largest class probability reaches `threshold`, else the last (CALM's softmax rule)."""
    ready = exits.confidence >= threshold
    ready[:, -1] = True
    return ready.long().argmax(1)


def patient_at(exits: Exits, patience: int) -> Int[Tensor, " n"]:
    """The first exit that repeats the answer of the `patience` exits before it, else the last (PABEE)."""
    answers = exits.answers
    run = torch.zeros_like(answers)
    for layer in range(1, answers.shape[1]):
        same = answers[:, layer] == answers[:, layer - 1]
        run[:, layer] = torch.where(same, run[:, layer - 1] + 1, 0)
    ready = run >= patience
    ready[:, -1] = True
    return ready.long().argmax(1)


def first_right(exits: Exits) -> Int[Tensor, " n"]:
    """The oracle: the first exit that is right; the first of all where none is, since depth would not help."""
    return exits.correct.long().argmax(1)


def dealt(exits: Exits, depth: Float[Tensor, " n"]) -> Stops:
    """The control: the same depths dealt to other items, averaged over all ways of dealing them.

    It keeps the mean and the mixture of depths and takes away which item gets which.
    """
    n_layers = exits.correct.shape[1]
    share = torch.bincount(depth.long() - 1, minlength=n_layers).double() / len(depth)
    return Stops(torch.full_like(depth, float(depth.mean())), exits.correct.double() @ share)


def fixed(exits: Exits, mean_depth: float) -> Stops:
    """Everyone leaves at the same depth; between two layers, a share of the items drawn at random goes one further."""
    n_layers = exits.correct.shape[1]
    if not 1 <= mean_depth <= n_layers:
        raise ConceptLabError(f"A depth lies between 1 and {n_layers} layers; got {mean_depth}.")
    low = min(int(mean_depth), n_layers - 1) - 1 if n_layers > 1 else 0
    share = mean_depth - (low + 1)
    right = exits.correct.double()
    value = right[:, low] if n_layers == 1 else (1 - share) * right[:, low] + share * right[:, low + 1]
    return Stops(torch.full((len(right),), float(mean_depth), dtype=torch.float64), value)


def mixed(tried: Sequence[Stops], mean_depth: float) -> Stops:
    """The mixture of the two neighbouring results (by depth) that has `mean_depth`; the nearest one at the ends."""
    tried = sorted(tried, key=lambda s: s.mean_depth)
    depths = [s.mean_depth for s in tried]
    above = next((i for i, d in enumerate(depths) if d >= mean_depth), len(tried))
    if above in (0, len(tried)):
        return tried[min(above, len(tried) - 1)]
    a, b = tried[above - 1], tried[above]
    share = (mean_depth - depths[above - 1]) / (depths[above] - depths[above - 1])
    return Stops((1 - share) * a.depth + share * b.depth, (1 - share) * a.correct + share * b.correct)


def all_confident(exits: Exits, n: int = 60) -> list[Stops]:
    """The confidence rule over thresholds that cover its range: quantiles of the confidences met."""
    levels = torch.quantile(exits.confidence.flatten(), torch.linspace(0, 1, n))
    return [stops(exits, confident_at(exits, float(level))) for level in levels] + [
        stops(exits, confident_at(exits, 1.1))
    ]


def all_patient(exits: Exits) -> list[Stops]:
    """The patience rule for every patience from 0 (leave at once) to one that nobody reaches."""
    return [stops(exits, patient_at(exits, k)) for k in range(exits.correct.shape[1] + 1)]


# ---- at equal mean depth ----------------------------------------------------------------------------------
RIVALS = ("fixed", "dealt", "confidence", "patience")


def rivals(exits: Exits) -> dict[str, list[Stops]]:
    """The rules that have settings of their own, each at all of them."""
    return {"confidence": all_confident(exits), "patience": all_patient(exits)}


def against(exits: Exits, mine: Stops, settings: dict[str, list[Stops]]) -> dict[str, Stops]:
    """What every rival makes of the same items at the same mean depth."""
    found = {"fixed": fixed(exits, mine.mean_depth), "dealt": dealt(exits, mine.depth)}
    return found | {name: mixed(tried, mine.mean_depth) for name, tried in settings.items()}


def inside(tried: Sequence[Stops], n_layers: int, margin: float = 0.1) -> list[Stops]:
    """Those results whose mean depth is neither at the first nor at the last layers, where all rules are one."""
    return [s for s in tried if margin * n_layers <= s.mean_depth <= (1 - margin) * n_layers]


def gains(exits: Exits, tried: Sequence[Stops], settings: dict[str, list[Stops]]) -> dict[str, Float[Tensor, " n"]]:
    """Per rival, per item: how much more often it is answered rightly, averaged over the results in `tried`.

    Averaging over the whole range of depths chooses none; `bootstrap` of the outcome resamples items.
    """
    if not tried:
        raise ConceptLabError("There is no result to compare; give a policy whose mean depth lies inside the range.")
    pairs = [(s, against(exits, s, settings)) for s in tried]
    return {r: torch.stack([s.correct - other[r].correct for s, other in pairs]).mean(0) for r in pairs[0][1]}


def gain_intervals(
    exits: Exits,
    tried: Sequence[Stops],
    settings: dict[str, list[Stops]],
    n_resamples: int = 2_000,
    seed: int = 0,
    groups: Sequence[int] = (),
) -> dict[str, Interval]:
    """`gains` with 95 % intervals over resamples of the items, or of the groups that items belong to."""
    return {r: over_groups(x, groups, n_resamples, seed) for r, x in gains(exits, tried, settings).items()}


def over_groups(
    values: Float[Tensor, " n"], groups: Sequence[int] = (), n_resamples: int = 2_000, seed: int = 0
) -> Interval:
    """Mean with its interval; where items belong to groups, the mean of the groups' means, over resamples of groups."""
    if not groups:
        return bootstrap(values, n_resamples, seed)
    if len(groups) != len(values):
        raise ConceptLabError(f"There are {len(values)} items and {len(groups)} groups named; name one for each item.")
    index = torch.tensor(groups)
    sums = torch.zeros(int(index.max()) + 1, dtype=torch.float64).index_add_(0, index, values.double())
    return bootstrap(sums / index.bincount(), n_resamples, seed, over="words")


def dealt_settings(exits: Exits, settings: dict[str, list[Stops]], name: str) -> list[Stops]:
    """The dealt control of a rule at each of its settings, to be brought to a depth by `mixed`."""
    return [dealt(exits, s.depth) for s in settings[name]]
