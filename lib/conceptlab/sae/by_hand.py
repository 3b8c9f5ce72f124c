"""Dictionaries that a reader trains by hand: weights as a plain mapping, and what their loop is given.

`p` holds the tensors `W_enc [d_in, d_sae]`, `b_enc [d_sae]`, `W_dec [d_sae, d_in]`, `b_dec [d_in]`, and for JumpReLU
`log_threshold [d_sae]`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from .architectures import make_sae
from .base import SAE, SAEConfig

Weights = dict[str, Tensor]
Slopes = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]  # of jump and step in the threshold


def start(x: Float[Tensor, "n d_in"], d_sae: int, seed: int = 0) -> Weights:
    """Weights to begin with: decoder rows are directions of activations, the encoder a tenth of their transpose."""
    picks = torch.randint(len(x), (d_sae,), generator=torch.Generator().manual_seed(seed))
    W_dec = F.normalize(x[picks] - x.mean(0), dim=1)
    p = {"W_enc": 0.1 * W_dec.T, "b_enc": torch.zeros(d_sae), "W_dec": W_dec, "b_dec": x.mean(0)}
    return copy(p)


def copy(p: Weights) -> Weights:
    """The same weights as new leaves, to be trained on their own."""
    return {name: weight.detach().clone().requires_grad_() for name, weight in p.items()}


def as_sae(p: Weights, architecture: str = "relu", k: int = 1) -> SAE:
    """The same weights in the library's class, which measures them. `k`: of TopK and BatchTopK."""
    d_in, d_sae = p["W_enc"].shape
    sae = make_sae(SAEConfig(architecture, d_in, d_sae, k, "", 0, ""))
    sae.load_state_dict(p)
    return sae.requires_grad_(False)


def jump(
    z: Float[Tensor, "batch n"], threshold: Float[Tensor, " n"], width: Tensor, slopes: Slopes
) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch n"]]:
    """`z * 1[z > threshold]` and `1[z > threshold]`; backwards, `slopes(z, threshold, width)` stands for the
    derivatives of the two in the threshold. The gradient of `z` is exact.
    """
    return _Jump.apply(z, threshold, width, slopes)


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, threshold, width, slopes):
        ctx.save_for_backward(z, threshold)
        ctx.width, ctx.slopes = width, slopes
        return z * (z > threshold), (z > threshold).to(z.dtype)

    @staticmethod
    def backward(ctx, d_jump, d_step):
        z, threshold = ctx.saved_tensors
        jump_slope, step_slope = ctx.slopes(z, threshold, ctx.width)
        return d_jump * (z > threshold), (d_jump * jump_slope + d_step * step_slope).sum(0), None, None


Restart = Callable[[Weights, Tensor, Tensor, Tensor, torch.Generator], None]


def random_restart(p: Weights, dead: Bool[Tensor, " n"], x: Tensor, x_hat: Tensor, generator: torch.Generator) -> None:
    """The control of a restart at errors: random directions, encoder columns as strong (0.2 living lengths)."""
    with torch.no_grad():
        rows = F.normalize(torch.randn(int(dead.sum()), x.shape[1], generator=generator), dim=1)
        p["W_dec"][dead] = rows
        p["W_enc"][:, dead] = 0.2 * p["W_enc"][:, ~dead].norm(dim=0).mean() * rows.T
        p["b_enc"][dead] = 0.0


def no_restart(p: Weights, dead: Bool[Tensor, " n"], x: Tensor, x_hat: Tensor, generator: torch.Generator) -> None:
    """The other control: the dead stay dead."""


@torch.no_grad()
def restart_dead(
    p: Weights,
    features_of: Callable[[Tensor, Weights], Tensor],
    x: Float[Tensor, "n d_in"],
    restart: Restart = no_restart,
    seed: int = 0,
) -> float:
    """Restart the features that fire on none of the tokens `x`; returns their share before."""
    f = features_of(x, p)
    dead = (f > 0).sum(0) == 0
    if bool(dead.any()):
        restart(p, dead, x, f @ p["W_dec"] + p["b_dec"], torch.Generator().manual_seed(seed))
    return float(dead.double().mean())
