"""Two arms of the lab's table beside each other, question by question: a method under an attack, and its control."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .evidence import relearnt

TOGETHER = "all together"


class Beside(NamedTuple):
    """Margins of the same questions before and after the same attack (nats): of a method, and of its control."""

    before: Float[Tensor, " n"]
    after: Float[Tensor, " n"]
    control_before: Float[Tensor, " n"]
    control_after: Float[Tensor, " n"]


def beside_control(
    model: str, control: str, attack: str = "relearning", method: str = "pisces", against: str = "relearning"
) -> dict[str, Beside]:
    """Concept -> the margins of a method under the attack `against` beside those of a control under `attack`.

    Of the concepts for which the lab's table has both; where these are several, their questions also `TOGETHER`.
    """
    mine, beside = relearnt(model, method, against), relearnt(model, control, attack)
    found = {}
    for i, name in enumerate(mine.names):
        if name in beside.names:
            own, other = mine.concept == i, beside.concept == beside.names.index(name)
            found[name] = Beside(mine.erased[own], mine.after[own], beside.erased[other], beside.after[other])
    return together(found)


def together(found: dict[str, Beside]) -> dict[str, Beside]:
    """The same with the questions of all concepts as one more row, where there are several concepts."""
    if len(found) < 2:
        return found
    return found | {TOGETHER: Beside(*map(torch.cat, zip(*found.values(), strict=True)))}
