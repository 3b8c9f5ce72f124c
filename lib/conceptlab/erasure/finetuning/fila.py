"""FILA: where LoRA starts, so that its few directions are those that matter for what is to be forgotten (LoKU, Cha et
al. 2024, arXiv 2408.06621): the rank-r product nearest to `W` in `|| diag(s) (W - B A) ||`, `s_i^2 = sum_j F_ij(forget)
/ F_ij(keep)`, F the diagonal Fisher information. `W - B A` stays behind as the frozen weight.

By singular values of `diag(s) W = U S V'`: `B = diag(1/s) U_r S_r^(1/2)`, `A = S_r^(1/2) V_r'`. Here the residual is
not written: the adapter subtracts its start, so that the model is the original to the bit before the first step (the
released code rounds the residual to bfloat16). The released code squares the gradient of a batch's mean loss, in which
rows cancel, where the Fisher information is the mean of squares row by row; adds 1e-5 to F(keep), so that where its
entries are smaller than that, the ratio no longer depends on what is kept; and takes `svd_lowrank(q=r)`, which without
spare columns is a random draw near the best r directions. Here rows are taken one by one, the ratio is damped by a
share of F(keep)'s mean, and the decomposition is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ...data import AnswerRow
from ...edits import Starts, trainable, trained_parameters
from ...models import LanguageModel
from .loop import Material, TuningConfig
from .terms import MarkedRows, cross_entropy

ROWS = 12  # of each kind, over which the Fisher information is a mean
DAMPING = 0.1  # of the mean of F(keep), added to it


def diagonal_fisher(
    lm: LanguageModel, rows: Sequence[AnswerRow], names: Sequence[str]
) -> dict[str, Float[Tensor, "out in"]]:
    """Mean over rows of the squared gradient of each row's mean loss: the (empirical) diagonal Fisher information."""
    parameters = lm.parameters()
    chosen = {name: parameters[name] for name in names}
    with torch.enable_grad(), trainable(lm, chosen):
        found = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in chosen.items()}
        for row in rows:
            gradients = torch.autograd.grad(cross_entropy(lm, MarkedRows.of(lm, [row])), list(chosen.values()))
            for name, g in zip(chosen, gradients, strict=True):
                found[name] += g.float().square() / len(rows)
    return found


def weighted_low_rank(
    weight: Float[Tensor, "out in"], importance: Float[Tensor, " out"], rank: int
) -> tuple[Float[Tensor, "rank in"], Float[Tensor, "out rank"]]:
    """A and B of the rank-r product nearest to `weight`, an error in row i counting `importance[i]` times."""
    s = importance.double().clamp_min(1e-12).sqrt()
    U, S, V = torch.linalg.svd(s[:, None] * weight.double(), full_matrices=False)
    root = S[:rank].sqrt()
    return (root[:, None] * V[:rank]).float(), (U[:, :rank] * root / s[:, None]).float()


def fila_starts(lm: LanguageModel, material: Material, cfg: TuningConfig) -> Starts:
    """A and B for every weight that `cfg` trains, scaled so that `alpha / rank * B A` is the nearest product."""
    assert cfg.rank is not None
    names = [n for n, p in trained_parameters(lm, cfg.weights, cfg.layers).items() if p.ndim == 2]
    forget, keep = (diagonal_fisher(lm, rows[:ROWS], names) for rows in (material.forget, material.keep))
    starts = {}
    for name in names:
        ratio = forget[name] / (keep[name] + DAMPING * keep[name].mean()).clamp_min(torch.finfo(torch.float32).tiny)
        A, B = weighted_low_rank(lm.parameters()[name].detach().float(), ratio.sum(1), cfg.rank)
        starts[name] = A, B * (cfg.rank / cfg.alpha)
    return starts
