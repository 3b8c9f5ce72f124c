"""Answers of notebook 02: pieces of sparse dictionaries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


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
    "BatchTopK's threshold": inference_threshold,
    "JumpReLU's gradient": pseudo_gradients,
    "shrinkage": shrunk,
    "mean max cosine": mean_max_cosine,
    "norms into the encoder": unit_norm,
}
