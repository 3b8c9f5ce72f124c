"""Answers of notebook 02: a dictionary written and trained by hand. `p`: the parameters by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Parameters = dict[str, Tensor]


def forward(x: Tensor, p: Parameters) -> tuple[Tensor, Tensor]:
    """Features `[batch, d_sae]` and reconstruction `[batch, d_in]` of a ReLU dictionary."""
    f = torch.relu((x - p["b_dec"]) @ p["W_enc"] + p["b_enc"])
    return f, f @ p["W_dec"] + p["b_dec"]


def dictionary_loss(x: Tensor, x_hat: Tensor, f: Tensor, l1: float) -> Tensor:
    """Squared error and `l1` times the sum of the features, both per token."""
    return (x - x_hat).square().sum(-1).mean() + l1 * f.sum(-1).mean()


def train(
    data: Tensor, p: Parameters, steps: int, l1: float, lr: float, generator: torch.Generator,
    features: Callable = forward, penalty: Callable = dictionary_loss,
) -> list[float]:  # fmt: skip
    """Train `p` in place on random batches of 256 tokens; decoder rows keep length 1. Returns every step's loss."""
    for weight in p.values():
        weight.requires_grad_(True)
    adam, history = torch.optim.Adam(p.values(), lr=lr), []
    for _ in range(steps):
        x = data[torch.randint(len(data), (256,), generator=generator)]
        f, x_hat = features(x, p)
        loss = penalty(x, x_hat, f, l1)
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            p["W_dec"] /= p["W_dec"].norm(dim=1, keepdim=True)
        history.append(loss.item())
    for weight in p.values():
        weight.requires_grad_(False)
    return history


def pseudo_gradients(z: Tensor, threshold: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """Gradients in the threshold of the jump and of the step, from a rectangle of area 1: two `[tokens, d_sae]`."""
    kernel = ((z - threshold).abs() < width / 2).to(z.dtype)
    return -threshold / width * kernel, -kernel / width


def revive(p: Parameters, dead: Tensor, x: Tensor, x_hat: Tensor) -> Parameters:
    """New parameters in which every dead feature `[d_sae]` (boolean) points at a badly reconstructed token.

    The i-th dead feature gets the error of the token that is i-th worst, at length 1, as decoder row and encoder
    column, and bias 0. All others stay as they are.
    """
    new, error = {name: weight.clone() for name, weight in p.items()}, x - x_hat
    places = dead.nonzero()[:, 0][: len(x)]
    worst = error.square().sum(1).argsort(descending=True, stable=True)[: len(places)]
    unit = error[worst] / error[worst].norm(dim=1, keepdim=True)
    new["W_dec"][places], new["W_enc"][:, places], new["b_enc"][places] = unit, unit.T, 0.0
    return new


def inference_threshold(batches: list[Tensor], k: int) -> Tensor:
    """The smallest score that a batch keeps, averaged over batches."""
    return torch.stack([scores.flatten().topk(k * len(scores)).values[-1] for scores in batches]).mean()


ANSWERS: dict[str, Callable[..., Any]] = {
    "forward pass of a dictionary": forward,
    "loss of a dictionary": dictionary_loss,
    "a training loop": train,
    "JumpReLU's gradient": pseudo_gradients,
    "reviving dead features": revive,
    "BatchTopK's threshold": inference_threshold,
}
