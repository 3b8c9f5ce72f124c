"""Three made-up claims with data and a menu of controls: which control decides, and does the claim survive it?

Everything is drawn from a seed, so the truth is known: `Case.truth` says whether the claimed thing is in the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core import ConceptLabError, Interval, bootstrap, paired_bootstrap, proportion

N = 200  # questions, or held-out texts


@dataclass(frozen=True)
class Case:
    """A claim, its number, and controls that can be run on its data."""

    claim: str
    number: Interval
    menu: dict[str, Callable[[], Interval]]  # control -> what the same measurement gives there
    deciding: tuple[str, ...]  # controls that can tell whether the claim holds
    truth: bool  # whether it does

    def run(self, control: str) -> Interval:
        """The measurement on this control. Raises ConceptLabError for one that is not on the menu."""
        if control not in self.menu:
            raise ConceptLabError(f"There is no control {control!r} here; choose one of {', '.join(self.menu)}.")
        return self.menu[control]()


def cases(seed: int = 0) -> dict[str, Case]:
    """ "probe", "head" and "steering"; the same data for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return {"probe": _probe(generator), "head": _head(generator), "steering": _steering(generator)}


def _probe(generator: torch.Generator) -> Case:
    """600 numbers a text and 80 texts: a linear reader fits any labels."""
    x, y = torch.randn(80, 600, generator=generator), torch.arange(80) % 2
    new, y_new = torch.randn(N, 600, generator=generator), torch.arange(N) % 2
    other = y[torch.randperm(80, generator=generator)]

    def accuracy(train: Tensor, at: Tensor, labels: Tensor) -> Interval:
        w = torch.linalg.pinv(x) @ (2.0 * train - 1)
        return proportion(int(((at @ w > 0) == labels.bool()).sum()), len(labels), "texts")

    return Case(
        "A linear probe reads the tense of a verb from layer 2: 80 texts, all of them right.",
        accuracy(y, x, y),
        {
            "texts that it was not fitted on": lambda: accuracy(y, new, y_new),
            "shuffled labels, fitted in the same way": lambda: accuracy(other, x, other),
            "the same probe, fitted again": lambda: accuracy(y, x, y),
            "the same probe on half of the texts": lambda: accuracy(y, x[:40], y[:40]),
        },
        ("texts that it was not fitted on", "shuffled labels, fitted in the same way"),
        False,
    )


def _head(generator: torch.Generator) -> Case:
    """A loud head: silencing any head that writes as much costs as much."""
    before = torch.rand(N, generator=generator) < 0.8

    def loss(share: float) -> Interval:
        after = before & (torch.rand(N, generator=generator) > share)
        return paired_bootstrap(before.double(), after.double())

    found = {name: loss(share) for name, share in (("own", 0.24), ("quiet", 0.01), ("loud", 0.23))}
    again = bootstrap(torch.zeros(N, dtype=torch.float64))
    return Case(
        "Head 7.3 holds the model's French: without it, it loses this share of 200 French questions.",
        found["own"],
        {
            "a random head of the same layer": lambda: found["quiet"],
            "a head of the same layer that writes as much": lambda: found["loud"],
            "the same head, silenced by zero twice": lambda: found["own"],
            "no head at all": lambda: again,
        },
        ("a head of the same layer that writes as much",),
        False,
    )


def _steering(generator: torch.Generator) -> Case:
    """A direction that does what it is said to do."""

    def polite(share: float) -> Interval:
        return proportion(int((torch.rand(N, generator=generator) < share).sum()), N, "answers")

    own, none, random, other = (polite(s) for s in (0.71, 0.4, 0.41, 0.43))
    return Case(
        "Adding this direction makes answers polite: this share of 200 is; without it, two in five are.",
        own,
        {
            "random directions of the same length": lambda: random,
            "a direction for another style, of the same length": lambda: other,
            "no direction": lambda: none,
            "the same direction with the other answers": lambda: own,
        },
        ("random directions of the same length", "a direction for another style, of the same length"),
        True,
    )
