"""Answers of notebook 02: pieces of sparse dictionaries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def forward(x: Tensor, p: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Features `[batch, d_sae]` and reconstruction `[batch, d_in]` of a ReLU dictionary."""
    f = torch.relu((x - p["b_dec"]) @ p["W_enc"] + p["b_enc"])
    return f, f @ p["W_dec"] + p["b_dec"]


def loss(x: Tensor, p: dict[str, Tensor], l1: float) -> Tensor:
    """Squared error over the variance of the batch, plus the L1 price in the same unit."""
    f, x_hat = forward(x, p)
    variance = (x - x.mean(0)).square().sum()
    return (x - x_hat).square().sum() / variance + l1 * f.sum() / (variance * len(x)).sqrt()


def train(
    x: Tensor,
    p: dict[str, Tensor],
    loss_of: Callable[[Tensor, dict[str, Tensor]], Tensor],
    steps: int,
    lr: float = 3e-3,
    batch_size: int = 512,
    seed: int = 0,
) -> list[float]:
    """Adam on random batches, decoder rows of length 1 after every step; changes `p`, returns the losses."""
    generator, history = torch.Generator().manual_seed(seed), []
    optimiser = torch.optim.Adam(p.values(), lr=lr)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (batch_size,), generator=generator)]
        loss = loss_of(batch, p)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            p["W_dec"] /= p["W_dec"].norm(dim=1, keepdim=True)
        history.append(loss.item())
    return history


@torch.no_grad()
def revive(p: dict[str, Tensor], dead: Tensor, x: Tensor, x_hat: Tensor, generator: torch.Generator) -> None:
    """Point dead features at the errors of badly rebuilt tokens, in place."""
    error = x - x_hat
    chance = error.square().sum(1).square()
    n = int(dead.sum())
    picks = torch.multinomial(chance, n, replacement=n > int((chance > 0).sum()), generator=generator)
    rows = error[picks] / error[picks].norm(dim=1, keepdim=True)
    p["W_dec"][dead] = rows
    p["W_enc"][:, dead] = 0.2 * p["W_enc"][:, ~dead].norm(dim=0).mean() * rows.T
    p["b_enc"][dead] = 0.0


def inference_threshold(batches: list[Tensor], k: int) -> Tensor:
    """The smallest score that a batch keeps, averaged over batches."""
    return torch.stack([scores.flatten().topk(k * len(scores)).values[-1] for scores in batches]).mean()


def pseudo_gradients(z: Tensor, threshold: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """Gradients in the threshold of the jump and of the step, from a rectangle of area 1: two `[tokens, d_sae]`."""
    kernel = ((z - threshold).abs() < width / 2).to(z.dtype)
    return -threshold / width * kernel, -kernel / width


def shrunk(a: Tensor, l1: float) -> Tensor:
    """The feature `f >= 0` that minimises `(a - f)^2 + l1 f`."""
    return torch.relu(a - l1 / 2)


def mean_max_cosine(truth: Tensor, found: Tensor) -> Tensor:
    """For each planted row the largest cosine with any found row, averaged."""
    truth, found = (x / x.norm(dim=1, keepdim=True) for x in (truth, found))
    return (truth @ found.T).amax(1).mean()


def unit_norm(W_enc: Tensor, b_enc: Tensor, W_dec: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Decoder rows of length 1 and an encoder that keeps the function."""
    norms = W_dec.norm(dim=1)
    return W_enc * norms, b_enc * norms, W_dec / norms[:, None]


ANSWERS: dict[str, Callable[..., Any]] = {
    "forward pass and loss": loss,
    "a training loop": train,
    "dead features revived": revive,
    "BatchTopK's threshold": inference_threshold,
    "JumpReLU's gradient": pseudo_gradients,
    "shrinkage": shrunk,
    "mean max cosine": mean_max_cosine,
    "norms into the encoder": unit_norm,
}
