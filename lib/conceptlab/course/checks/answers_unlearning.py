"""Answers of notebook 06: losses, dampening, protection, an assistant's loss, an adversary's choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def npo(logp: Tensor, reference: Tensor, beta: float) -> Tensor:
    """`-(2 / beta) mean log sigmoid(-beta (log p - log p_0))` of rows `[n]`."""
    return -(2 / beta) * torch.nn.functional.logsigmoid(-beta * (logp - reference)).mean()


def hinge(logits: Tensor, targets: Tensor) -> Tensor:
    """`1 + p(target) - max of the others` of each token: `[n]`."""
    p = logits.softmax(-1)
    true = p.gather(1, targets[:, None])[:, 0]
    return 1 + true - p.scatter(1, targets[:, None], -1.0).amax(1)


def dampened(weight: Tensor, forget: Tensor, keep: Tensor, alpha: float, lam: float) -> Tensor:
    """Weights that matter more than `alpha` times as much for what is to go, times `lam keep / forget`, at most 1."""
    factor = (lam * keep / forget.clamp_min(1e-30)).clamp(max=1.0)
    return torch.where(forget > alpha * keep, weight * factor, weight)


def protected(change: Tensor, keys: Tensor) -> Tensor:
    """The nearest change `[out, in]` that alters the output of no key `[m, in]`."""
    _, values, rows = torch.linalg.svd(keys.double(), full_matrices=False)
    basis = rows[values > 1e-5 * values[0]]  # what the keys span; they need not be independent
    return (change.double() - change.double() @ basis.T @ basis).to(change)


def assistant_loss(told: Tensor, targets: Tensor, kept: Tensor) -> Tensor:
    """Cross-entropy on what is to go, and KL from the uniform distribution on what is to stay."""
    learn = torch.nn.functional.cross_entropy(told, targets)
    uniform = kept.logsumexp(-1) - kept.mean(-1) - torch.log(torch.tensor(float(kept.shape[-1])))
    return learn + uniform.mean()


def leaking_form(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], tried: Sequence[int], judged: Sequence[int]
) -> tuple[str, float]:
    """The form that keeps most on the facts tried, and what it keeps on the facts that judge."""

    def kept(form: str, facts: Sequence[int]) -> float:
        top, now = before[form][list(facts)], after[form][list(facts)]
        known = top > 0
        return float(now[known].sum() / top[known].sum())

    best = max(before, key=lambda form: kept(form, tried))
    return best, kept(best, judged)


ANSWERS: dict[str, Callable[..., Any]] = {
    "NPO's loss": npo,
    "inverted hinge": hinge,
    "dampening": dampened,
    "protected keys": protected,
    "the assistant's loss": assistant_loss,
    "the form that leaks": leaking_form,
}
