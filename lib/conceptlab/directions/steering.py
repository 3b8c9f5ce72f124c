"""Steering along a direction: additive, as the paper describes it, and multiplicative, as its released code does it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError
from ..edits import Intervention
from ..models import LanguageModel

DOSES = (-1.0, -0.5, 0.5, 1.0)  # times the distance between the naive kinds' means
FACTORS = (-1.0, -0.5, 0.1)  # of the multiplication; -1 projects out, .1 is the default of the paper's code
WRITTEN = ("resid_pre", "attn_contribution", "mlp_contribution")  # the sites that the released code multiplies at


@dataclass(frozen=True)
class Added:
    """`h <- h + vector` after block `layer`, at every position."""

    layer: int
    vector: Float[Tensor, " d_model"]

    def applied(self, lm: LanguageModel) -> AbstractContextManager:
        """The model steered, inside the block."""
        vector = self.vector.to(lm.device, lm.dtype)
        return lm.intervene({("resid_post", self.layer): lambda h: h + vector})


@dataclass(frozen=True)
class Multiplied:
    """`h <- h + factor (h . u) w` at block input, attention and MLP of every layer; `u` of length 1.

    `w` is `u` itself, as in the released code (`factor` -1 projects the direction out), or another direction of length
    1, which moves a state as far, but somewhere else, at *one* site. Over all sites it moves the stream much farther:
    what was projected out is gone at the next site, while the part along `u` that a push along `w` leaves there is
    read again.
    """

    u: Float[Tensor, " d_model"]
    factor: float
    w: Float[Tensor, " d_model"] | None = None

    def __post_init__(self):
        for vector in (self.u, self.w):
            if vector is not None and abs(float(vector.norm()) - 1) > 1e-3:
                raise ConceptLabError(
                    f"A direction of length 1 is multiplied; this one has {float(vector.norm()):.3g}."
                )

    def applied(self, lm: LanguageModel) -> AbstractContextManager:
        """The model steered, inside the block."""
        u = self.u.to(lm.device, lm.dtype)
        w = u if self.w is None else self.w.to(u)

        def change(h: Tensor) -> Tensor:
            return h + self.factor * (h @ u)[..., None] * w

        return lm.intervene({(site, layer): change for layer in range(lm.n_layers) for site in WRITTEN})


def unit(vector: Float[Tensor, " d_model"]) -> Float[Tensor, " d_model"]:
    """The vector with length 1. Raises ConceptLabError for one without length."""
    length = float(vector.norm())
    if not length > 0:
        raise ConceptLabError("A direction without length cannot be scaled to 1; the two kinds have the same mean.")
    return vector / length


def random_directions(n: int, d_model: int, seed: int = 0) -> Float[Tensor, "n d_model"]:
    """`n` random directions of length 1, the control for every steering."""
    drawn = torch.randn(n, d_model, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=1, keepdim=True)


def steering_plan(
    lm: LanguageModel, kept: Mapping[str, Float[Tensor, " d_model"]], layer: int, n_random: int, seed: int = 0
) -> dict[tuple[str, str, float], Intervention]:
    """Rule, direction and dose -> the change. All directions move as far as the naive one's dose does.

    `multiplied` random directions take the naive direction's own coefficients, so that each state moves as far.
    """
    size, drawn = float(kept["naive"].norm()), random_directions(n_random, lm.d_model, seed)
    plan: dict[tuple[str, str, float], Intervention] = {}
    for name, d in kept.items():
        plan |= {("added", name, dose): Added(layer, dose * size * unit(d)) for dose in DOSES}
    for i, d in enumerate(drawn):  # minus a random direction is another one: positive doses are enough
        plan |= {("added", f"random {i}", dose): Added(layer, dose * size * d) for dose in DOSES if dose > 0}
    for name in ("naive", "step-memory"):
        plan |= {("multiplied", name, f): Multiplied(unit(kept[name]), f) for f in FACTORS}
    for i, d in enumerate(drawn):
        plan["multiplied", f"random {i}", -1.0] = Multiplied(unit(kept["naive"]), -1.0, d)
    return plan
