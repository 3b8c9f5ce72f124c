"""Judges and scorers: does a label alone tell where a unit fires? Separate from the explainers that wrote it.

Detection: a judge reads a label and held-out contexts, some with strong firings and some where the unit is silent, and
gives each a number; the score is the chance that a firing context gets the larger one (AUROC).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..cache import ConceptLabError
from ..evaluation import Interval
from .examples import Example, UnitExamples
from .explain import Label


@runtime_checkable
class Judge(Protocol):
    """Reads a label and contexts, and says how sure it is that the unit fires on each."""

    name: str

    def judge(self, label: Label, contexts: Sequence[Example]) -> Float[Tensor, " n"]:
        """One number per context, larger for "fires". Only the label and the text up to the token may be used."""
        ...


class EvidenceJudge:
    """Rule-based: adds up the weights of the label's items that occur in a context. It knows no synonym."""

    name = "evidence"

    def judge(self, label: Label, contexts: Sequence[Example]) -> Float[Tensor, " n"]:
        """Sum of weights: the token (its shape where it is not listed), the token in front, words of the context."""
        return torch.tensor([self._evidence(label, context) for context in contexts])

    def _evidence(self, label: Label, context: Example) -> float:
        at_token = label.tokens.get(context.token, label.shapes.get(context.shape, 0.0))
        in_front = label.previous.get(context.previous, 0.0)
        return at_token + in_front + sum(label.words[word] for word in sorted(context.words & label.words.keys()))


# ---- statistics of two sets of scores -------------------------------------------------------------------
def auroc(firing: Float[Tensor, " n"], silent: Float[Tensor, " m"]) -> float:
    """Chance that a firing context scores above a silent one; a tie counts one half."""
    return float(_wins(firing, silent).mean())


def auroc_interval(
    firing: Float[Tensor, " n"], silent: Float[Tensor, " m"], n_resamples: int = 2_000, seed: int = 0
) -> Interval:
    """AUROC with the 95 % interval over resamples of the contexts of both sides."""
    return _pair_interval(_wins(firing, silent), n_resamples, seed)


def best_threshold(firing: Float[Tensor, " n"], silent: Float[Tensor, " m"]) -> float:
    """The threshold with the largest balanced accuracy: "fires" is a score above it. For the labelling half."""
    levels = torch.cat([firing, silent]).unique()
    accuracy = [(firing > t).float().mean() + (silent <= t).float().mean() for t in levels]
    return float(levels[int(torch.stack(accuracy).argmax())])


def balanced_accuracy_interval(
    firing: Float[Tensor, " n"],
    silent: Float[Tensor, " m"],
    threshold: float,
    n_resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """Mean of the shares of firing contexts above and silent contexts not above `threshold`, with its interval."""
    right = ((firing > threshold).float()[:, None] + (silent <= threshold).float()[None]) / 2
    return _pair_interval(right, n_resamples, seed)


def _wins(firing: Tensor, silent: Tensor) -> Tensor:
    """`[n, m]`: 1 where the firing context scores higher, 1/2 at a tie."""
    if not len(firing) or not len(silent):
        raise ConceptLabError("A comparison needs contexts on both sides; one list was empty.")
    return (firing[:, None] > silent).float() + (firing[:, None] == silent).float() / 2


def _pair_interval(pairs: Tensor, n_resamples: int, seed: int) -> Interval:
    """Mean over all pairs; both sides are resampled on their own, pairs are not independent."""
    generator = torch.Generator().manual_seed(seed)
    pairs, counts = pairs.double(), []
    for size in pairs.shape:
        picks = torch.randint(size, (n_resamples, size), generator=generator)
        counts.append(torch.zeros(n_resamples, size).scatter_add_(1, picks, torch.ones(n_resamples, size)).double())
    means = ((counts[0] @ pairs) * counts[1]).sum(1) / pairs.numel()
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(pairs.mean()), low, high, sum(pairs.shape))


# ---- detection ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Detection:
    """How well one label tells where its unit fires, on texts the explainer has not seen."""

    label: Label
    rate: float  # share of tokens on which the unit fires
    auroc: Interval  # against random silent contexts
    hard: Interval | None  # against the same tokens, silent; None where no token is ever silent
    balanced_accuracy: Interval  # threshold from the labelling half
    foreign: tuple[float, ...]  # AUROC of other units' labels on the same contexts
    foreign_hard: tuple[float, ...]  # the same against the hard negatives; empty where there are none

    @property
    def control_high(self) -> float:
        """Upper end of the 95 % range of the foreign labels."""
        return float(torch.quantile(torch.tensor(self.foreign), 0.975))

    @property
    def explained(self) -> bool:
        """Whether the label does better than the shuffled control."""
        return self.auroc.value > self.control_high

    @property
    def text(self) -> str:
        """The label, or the admission that there is none."""
        return self.label.text if self.explained else "unexplained"


def detect(
    judge: Judge,
    labels: Sequence[Label],
    labelling: Sequence[UnitExamples],
    held_out: Sequence[UnitExamples],
    n_shuffles: int = 20,
    n_resamples: int = 2_000,
) -> list[Detection]:
    """Score every label on the held-out examples of its unit, and foreign labels on the same contexts.

    `labelling` holds the examples the labels were made from: only the threshold of the balanced accuracy uses them.
    """
    foreign = shuffled_aurocs(judge, labels, held_out, n_shuffles)
    foreign_hard = shuffled_aurocs(judge, labels, held_out, n_shuffles, hard=True)
    found = []
    for i, (label, seen, new) in enumerate(zip(labels, labelling, held_out, strict=True)):
        firing, silent = judge.judge(label, new.spread), judge.judge(label, new.silent)
        threshold = best_threshold(judge.judge(label, seen.spread), judge.judge(label, seen.silent))
        hard = None
        if new.hard:
            hard = auroc_interval(judge.judge(label, new.matched), judge.judge(label, new.hard), n_resamples)
        found.append(
            Detection(
                label,
                new.rate,
                auroc_interval(firing, silent, n_resamples),
                hard,
                balanced_accuracy_interval(firing, silent, threshold, n_resamples),
                tuple(foreign[:, i].tolist()),
                tuple(foreign_hard[:, i].tolist()) if new.hard else (),
            )
        )
    return found


def shuffled_aurocs(
    judge: Judge, labels: Sequence[Label], held_out: Sequence[UnitExamples], n_shuffles: int = 20, hard: bool = False
) -> Float[Tensor, "shuffles n"]:
    """The control: row s gives every unit the label of the unit s + 1 places further on (never its own).

    `hard`: against hard negatives; NaN for units without any. Raises ConceptLabError for fewer than two units.
    """
    n = len(labels)
    if n < 2:
        raise ConceptLabError("The shuffled control needs at least two units; one label cannot be shuffled.")
    found = torch.full((min(n_shuffles, n - 1), n), torch.nan)
    for i, examples in enumerate(held_out):
        sides = (examples.matched, examples.hard) if hard else (examples.spread, examples.silent)
        for shift in range(len(found) if sides[1] else 0):
            label = labels[(i + shift + 1) % n]
            found[shift, i] = auroc(judge.judge(label, sides[0]), judge.judge(label, sides[1]))
    return found
