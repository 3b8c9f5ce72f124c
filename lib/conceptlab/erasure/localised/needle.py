"""Needle: the concept's vectors are spoilt by noise, then trained to forget, and nothing else is.

    v_j <- v_j + noise of a norm of |v_j|;   then a few steps up the loss on texts to forget, in these columns alone

ConceptVectors (Hong et al., arXiv 2406.11614, section 5): there one vector, found by hand, gets noise of .1 per entry
(small models have shorter vectors: here noise is given in norms). The authors mask the gradient to that column but not
the weight decay of AdamW, so that the whole matrix and the embeddings shrink with every step. Here nothing decays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...concept_vectors import ConceptVector
from ...data import Concept
from ...edits import Dense, WeightEdit
from ...models import LanguageModel, next_token_loss
from ..method import Method
from .training import batches, rate, trained_edit

if TYPE_CHECKING:
    from ..shared import Shared


@dataclass(frozen=True)
class NeedleConfig:
    """How many vectors, how they are trained, and how much of the change is kept."""

    n: int = 100  # vectors, those that promote the concept's words most
    scale: float = 1.0  # share of noise and training
    noise: float = 1.0  # norm of the noise, in norms of the vector
    steps: int = 6
    lr: float = 0.3  # of the weights' root mean square
    batch_size: int = 8  # rows to forget
    n_ctx: int = 24  # tokens per row


def needle_edit(
    lm: LanguageModel, vectors: list[ConceptVector], forget: list[str], config: NeedleConfig, seed: int = 0
) -> WeightEdit:
    """Noise and training of these vectors; every other number stays what it was."""
    generator = torch.Generator().manual_seed(seed)
    columns: dict[str, Tensor] = {}
    for vector in vectors:
        name = lm.down_proj_name(vector.layer)
        columns.setdefault(name, torch.zeros(lm.d_mlp, dtype=torch.bool, device=lm.device))[vector.neuron] = True
    noisy = WeightEdit.of(lm, {n: _noise(lm, n, used, config.noise, generator) for n, used in columns.items()})
    planned = batches(lm, forget, forget, config.steps, config.batch_size, config.n_ctx, seed)
    with noisy.applied(lm):
        trained = trained_edit(
            lm, list(columns), lambda step: -next_token_loss(lm, *planned[step].forget), config.steps,
            rate(lm, list(columns), config.lr), {}, seed, mask=lambda name, g: g * columns[name],
        )  # fmt: skip
    return WeightEdit.of(lm, (noisy + trained).changes, {"method": "needle", "n": len(vectors)})


def _noise(lm: LanguageModel, name: str, used: Tensor, size: float, generator: torch.Generator) -> Dense:
    weight = lm.parameters()[name].detach().float()
    drawn = torch.randn(weight.shape, generator=generator).to(weight)
    return Dense(used * drawn * (size * weight.norm(dim=0) / drawn.norm(dim=0)))


def fit_needle(lm: LanguageModel, concept: Concept, config: NeedleConfig, shared: Shared) -> WeightEdit:
    """Trained once for each number of vectors, then scaled."""
    made = shared.made(
        ("needle", config.n, config.steps),
        lambda: needle_edit(lm, shared.vectors(config.n), shared.forget, config, shared.seed),
    )
    return made * config.scale


NEEDLE = Method(
    "needle", "localised", "ConceptVectors' Needle (arXiv 2406.11614, section 5), vectors found automatically",
    NeedleConfig(), fit_needle, {"n": (20, 100, 500), "scale": (0.25, 0.5, 0.75, 1.0)}, ("forget",),
    "three trainings of 6 steps, 1 min",
)  # fmt: skip
