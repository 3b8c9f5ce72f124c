"""SSD: weights that matter far more for what is to be forgotten than for the rest are dampened, without training.

    I(theta) = mean over texts of (d log p(text) / d theta)^2          (diagonal Fisher information)
    where I_forget > alpha I_keep:   theta <- min(lambda I_keep / I_forget, 1) theta

Selective synaptic dampening (Foster et al., arXiv 2308.07707) is a method for image classifiers; this
is a port to text: a text takes the place of an image, and of the weights only down projections are touched. The
authors' code squares the gradient of a *batch's mean* loss, which shrinks importance where the gradients of a batch
cancel out; here every text has its own gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ...data import Concept, text_rows
from ...edits import Dense, WeightEdit, trainable
from ...models import LanguageModel, next_token_loss
from ..method import Method

if TYPE_CHECKING:
    from ..shared import Shared


@dataclass(frozen=True)
class SsdConfig:
    """What is dampened, and how much."""

    alpha: float = 100.0  # a weight is dampened where it matters so many times as much for the concept
    lam: float = 1.0  # dampening constant
    n_texts: int = 16  # rows of each kind that importances are measured on
    n_ctx: int = 32  # tokens per row


def importances(
    lm: LanguageModel, names: Sequence[str], rows: Sequence[list[int]]
) -> dict[str, Float[Tensor, "d_model d_mlp"]]:
    """Mean over rows of the squared gradient of each row's loss (mean over its tokens)."""
    chosen = {name: lm.parameters()[name] for name in names}
    total = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in chosen.items()}
    with torch.enable_grad(), trainable(lm, chosen):
        for row in rows:
            gradients = torch.autograd.grad(next_token_loss(lm, *lm.pad([row])), list(chosen.values()))
            for name, gradient in zip(chosen, gradients, strict=True):
                total[name] += gradient.float().square() / len(rows)
    return total


def dampening(
    forget: Float[Tensor, "*shape"], keep: Float[Tensor, "*shape"], alpha: float, lam: float
) -> Float[Tensor, "*shape"]:
    """What each weight is multiplied by: 1 where it is not selected."""
    factor = (lam * keep / forget.clamp_min(1e-30)).clamp_max(1.0)
    return torch.where(forget > alpha * keep, factor, 1.0)


def fit_ssd(lm: LanguageModel, concept: Concept, config: SsdConfig, shared: Shared) -> WeightEdit:
    """Importances once, on as many rows of both kinds; then the dampening."""
    names = [lm.down_proj_name(layer) for layer in range(lm.n_layers)]

    def measured() -> tuple[dict[str, Tensor], ...]:
        parts = (text_rows(lm, texts, config.n_ctx) for texts in (shared.forget, shared.keep))
        return tuple(importances(lm, names, _spread(rows, config.n_texts)) for rows in parts)

    own, other = shared.made(("ssd", config.n_texts, config.n_ctx), measured)
    changes, touched = {}, 0
    for name in names:
        weight = lm.parameters()[name].detach().float()
        factor = dampening(own[name], other[name], config.alpha, config.lam)
        changes[name] = Dense(weight * (factor - 1))
        touched += int((factor < 1).sum())
    share = touched / sum(x.numel() for x in own.values())
    return WeightEdit.of(lm, changes, {"method": "ssd", "alpha": config.alpha, "dampened": share})


def _spread(rows: list[list[int]], n: int) -> list[list[int]]:
    """`n` rows (at most) from all over the list."""
    return rows[:: max(1, len(rows) // n)][:n]


SSD = Method(
    "ssd", "localised", "selective synaptic dampening (arXiv 2308.07707), a port from vision; down projections only",
    SsdConfig(), fit_ssd, {"alpha": (2000.0, 1000.0, 500.0, 300.0, 200.0, 150.0, 100.0, 70.0, 50.0, 30.0, 20.0, 10.0)},
    ("forget", "keep"), "32 gradients, 30 s",
)  # fmt: skip
