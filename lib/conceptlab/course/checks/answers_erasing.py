"""Answers of notebooks 04 and 05: erasing a concept, and attacking what is left."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...core import t_quantile
from ...erasure import Feature
from ...sae import SAE


# ---- notebook 04 ------------------------------------------------------------------------------------------
def selective(means: Tensor, own: int, share: float) -> Tensor:
    """Features whose weakest own group is above 0 and at least `share` times every other group."""
    weakest, strongest = means[:own].amin(0), means[own:].amax(0)
    return ((weakest > 0) & (weakest >= share * strongest)).nonzero()[:, 0]


def edit_rows(sae: SAE, rows: Tensor, f: int, tau: float, target: float) -> Tensor:
    """The edit of one feature, without a loop over rows."""
    e = rows @ sae.W_enc[:, f]
    change = (target - sae.encode(rows)[:, f]) * (e.abs() > tau * e.abs().max())
    return rows + change[:, None] * sae.W_dec[f]


def turn_round(features: Sequence[Feature]) -> list[Feature]:
    """The same features with their signs turned."""
    return [replace(f, sign=-f.sign) for f in features]


def raw_change(change: Tensor, gain: Tensor) -> Tensor:
    """The change of the raw rows that arrives as `change` behind a norm."""
    return torch.where(gain == 0, 0.0, change / gain)


def scores(before: float, after: float, chance: float) -> float:
    """Accuracy above chance that is kept, from 0 to 1."""
    return min(max((after - chance) / (before - chance), 0.0), 1.0) if before > chance else math.nan


def paired(a: Mapping[str, float], b: Mapping[str, float]) -> tuple[float, float, float]:
    """Mean difference over the concepts of both, with Student's t-interval."""
    gaps = torch.tensor([a[c] - b[c] for c in a if c in b]).double()
    mean, n = float(gaps.mean()), len(gaps)
    half = t_quantile(n - 1) * float(gaps.std()) / n**0.5 if n > 2 else math.nan
    return mean, mean - half, mean + half


# ---- notebook 05 ------------------------------------------------------------------------------------------
def my_share(original: Sequence[float], erased: Sequence[float], attacked: Sequence[float]) -> float:
    """What came back, of what was lost."""
    top, bottom, now = (torch.tensor(x).double().mean() for x in (original, erased, attacked))
    return float((now - bottom) / (top - bottom)) if top > bottom else math.nan


def cut(text: str, answers: Sequence[str]) -> str:
    """The text without the sentences that hold an answer."""
    words = "|".join(map(re.escape, answers))
    found = re.compile(rf"(?<!\w)(?:{words})(?!\w)" if answers else r"(?!)", re.IGNORECASE)
    return " ".join(s for s in re.split(r"(?<=[.!?])\s+", text) if not found.search(s))


class LoRA(nn.Module):
    """A frozen linear layer with a trained change of low rank."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.linear, self.scale = linear.requires_grad_(False), alpha / rank
        self.A = nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.scale * (x @ self.A.T @ self.B.T)

    def merged(self) -> Tensor:
        """One matrix that does the same."""
        return self.linear.weight + self.scale * self.B @ self.A


def rounding(W: Tensor, bits: int) -> Tensor:
    """Symmetric rounding to the nearest level, one scale per row."""
    scale = W.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return (W / scale).round() * scale


def my_candidates(logits: Tensor, B: int) -> list[int]:
    """Every layer's best token, then every layer's second best, the later layer first."""
    order = logits.argsort(1, descending=True).flip(0).T.flatten().tolist()
    return list(dict.fromkeys(order))[:B]


def above_control(
    erased: Tensor, attacked: Tensor, control: Tensor, control_attacked: Tensor
) -> tuple[float, float, float]:
    """Mean over questions of what the attack gains beyond what it gains in the control, with Student's t-interval."""
    extra = (attacked - erased) - (control_attacked - control)
    mean, half = float(extra.mean()), t_quantile(len(extra) - 1) * float(extra.std()) / len(extra) ** 0.5
    return mean, mean - half, mean + half


ANSWERS: dict[str, Callable[..., Any]] = {
    "selective features": selective,
    "closed form of the edit": edit_rows,
    "inverted sign": turn_round,
    "the right side of the norm": raw_change,
    "scores of an erasure": scores,
    "paired difference over concepts": paired,
    "recovered share": my_share,
    "text without answers": cut,
    "LoRA": LoRA,
    "rounding": rounding,
    "candidate sets": my_candidates,
    "gain above a control": above_control,
}
