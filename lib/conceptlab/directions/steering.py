"""Steering along a direction: additive, as the paper describes it, and multiplicative, as its released code does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError
from ..edits import Intervention
from ..models import LanguageModel

DOSES = (-1.0, -0.5, 0.5, 1.0)  # times the distance between the naive kinds' means
FACTORS = (-1.0, 0.1)  # of the multiplication; -1 projects out, .1 is the default of the paper's code
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
    """`h <- h + factor (h . u) u` at block input, attention and MLP of every layer, as in the released code.

    `u` has length 1; `factor` -1 projects the direction out.
    """

    u: Float[Tensor, " d_model"]
    factor: float

    def __post_init__(self):
        if abs(float(self.u.norm()) - 1) > 1e-3:
            raise ConceptLabError(f"A direction of length 1 is multiplied; this one has {float(self.u.norm()):.3g}.")

    def applied(self, lm: LanguageModel) -> AbstractContextManager:
        """The model steered, inside the block."""
        u = self.u.to(lm.device, lm.dtype)

        def change(h: Tensor) -> Tensor:
            return h + self.factor * (h @ u)[..., None] * u

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


@torch.no_grad()
def site_moment(lm: LanguageModel, texts: Sequence[str]) -> Float[Tensor, "d_model d_model"]:
    """Second moment of the states at the sites that `Multiplied` changes, scaled to trace 1 in each text and site.

    `u @ moment @ u` is the share of the states' energy (squared length) along `u`, averaged over texts and sites. The
    first position is left out: its states are so large that they would be all that counts. Raises ConceptLabError
    without a text of two tokens.
    """
    texts = [text for text in texts if len(lm.encode(text)) + len(lm.start_ids) > 1]
    if not texts:
        raise ConceptLabError("Give at least one text of two tokens or more; the first position does not count.")
    sites = [(site, layer) for layer in range(lm.n_layers) for site in WRITTEN]
    total = torch.zeros(lm.d_model, lm.d_model, dtype=torch.float64)
    for text in texts:
        for states in lm.capture(lm.tokens(text)[0], sites).values():
            x = states[0, 1:].double().cpu()
            total += x.T @ x / x.square().sum()
    return total / (len(sites) * len(texts))


def equal_energy_directions(
    moment: Float[Tensor, "d_model d_model"], u: Float[Tensor, " d_model"], n: int, seed: int = 0
) -> Float[Tensor, "n d_model"]:
    """`n` random directions of length 1 along which states hold as large a share of their energy as along `u`.

    A random direction may hold more or less, and then projecting it out changes states more or less. Each draw z is
    pulled towards (or away from) what is common in the states, w ~ moment^s z, with s found by bisection. Raises
    ConceptLabError where the states hold no more along any direction than along `u`.
    """
    values, vectors = torch.linalg.eigh(moment.double())
    values = values.clamp_min(values[-1] * 1e-12)
    wanted = float(u.double() @ moment.double() @ u.double() / u.double().square().sum())
    found = []
    for z in random_directions(n, len(moment), seed).double() @ vectors:
        low, high = -8.0, 8.0
        for _ in range(60):
            s = (low + high) / 2
            w = (values / values[-1]) ** s * z
            w = w / w.norm()
            low, high = (s, high) if float(values @ w.square()) < wanted else (low, s)
        if abs(float(values @ w.square()) / wanted - 1) > 0.01:
            raise ConceptLabError("No random direction holds as much of the states' energy as this one; take another.")
        found.append(vectors @ w)
    return torch.stack(found).float()


def steering_plan(
    lm: LanguageModel,
    kept: Mapping[str, Float[Tensor, " d_model"]],
    layer: int,
    n_random: int,
    seed: int = 0,
    texts: Sequence[str] = (),
) -> dict[tuple[str, str, float], Intervention]:
    """Rule, direction and dose -> the change. Added directions all move as far as the naive one's dose does.

    `multiplied` random directions hold as much of the states' energy in `texts` as the naive one; without texts there
    are none.
    """
    size, drawn = float(kept["naive"].norm()), random_directions(n_random, lm.d_model, seed)
    plan: dict[tuple[str, str, float], Intervention] = {}
    for name, d in kept.items():
        plan |= {("added", name, dose): Added(layer, dose * size * unit(d)) for dose in DOSES}
    for i, d in enumerate(drawn):  # minus a random direction is another one: positive doses are enough
        plan |= {("added", f"random {i}", dose): Added(layer, dose * size * d) for dose in DOSES if dose > 0}
    u = unit(kept["naive"])
    plan |= {("multiplied", "naive", f): Multiplied(u, f) for f in FACTORS}
    if texts:
        equal = equal_energy_directions(site_moment(lm, texts), u, n_random, seed)
        plan |= {("multiplied", f"random {i}", f): Multiplied(d, f) for i, d in enumerate(equal) for f in FACTORS}
    return plan
