"""Helpers of `models`: adapters from functions of an activation to PyTorch hooks, and the gain of a norm layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def input_hook(function: Callable) -> Callable:
    def hook(_module, args, kwargs):
        if args:
            new = function(args[0])
            return None if new is None else ((new, *args[1:]), kwargs)
        new = function(kwargs["hidden_states"])
        return None if new is None else (args, kwargs | {"hidden_states": new})

    return hook


def output_hook(function: Callable) -> Callable:
    def hook(_module, _args, output):
        if isinstance(output, tuple):
            new = function(output[0])
            return None if new is None else (new, *output[1:])
        return function(output)

    return hook


@torch.no_grad()
def norm_gain(norm: nn.Module | None, d_model: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Per-dimension gain of a norm layer, measured: an alternating +1/-1 input has mean 0 and rms 1.

    Holds for RMSNorm with weight `w` (Llama) or `1 + w` (Gemma) and for LayerNorm without parameters (OLMo).
    """
    if norm is None:
        return torch.ones(d_model, device=device, dtype=dtype)
    probe = torch.ones(d_model, device=device, dtype=torch.float32)
    probe[1::2] = -1
    eps = next((getattr(norm, n) for n in ("eps", "variance_epsilon") if hasattr(norm, n)), 0.0)
    gain = norm(probe.to(dtype)).float() * probe * (1 + eps) ** 0.5
    return gain.to(dtype)
