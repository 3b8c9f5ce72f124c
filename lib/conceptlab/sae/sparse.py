"""The sparse products of a TopK dictionary: gradients that touch only the active features, and a fast selection.

A step on B tokens of width d with n features, k of them active, costs (multiplications and additions)

    scores             x W_enc                2 B d n   the only dense product
    selection          the k largest of n     B n       read once, while a chunk of scores is still in the cache
    reconstruction     values, W_dec rows     2 B d k   a gather of k rows per token
    d values           <G, W_dec row>         2 B d k   another one
    d W_dec, d W_enc   sums over the uses     4 B d k   two gathers of a row per use, in the order of the features

and Adam, which reads and writes weights and moments once. The dense product is 19.3 GFLOP for B = n = 4,096, d = 576:
no exact step is faster than that over the FLOP/s of the machine, and dense gradients would add up to four such
products. What else costs time on a CPU is memory, so matrices [B, n] are never made: chunks of them use one buffer.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..selection import largest

_CHUNK = 1 << 22  # scores held at once on a CPU: 16 MiB


def weighted_rows(
    values: Float[Tensor, "batch k"], indices: Int[Tensor, "batch k"], rows: Float[Tensor, "n d"]
) -> Float[Tensor, "batch d"]:
    """`sum_k values[b, k] * rows[indices[b, k]]`, differentiable in `values` and `rows`."""
    return _WeightedRows.apply(values, indices, rows)


def top_scores(
    x: Float[Tensor, "batch d"], W: Float[Tensor, "d n"], bias: Float[Tensor, " n"], k: int
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """`TopK(relu(x @ W + bias))`: values and indices, in no particular order.

    Differentiable in `W` and `bias`, not in `x`.
    """
    return _TopScores.apply(x, W, bias, k)


def _select(x: Tensor, W: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of `x @ W + bias`, a chunk of tokens at a time."""
    n = W.shape[1]
    rows = max(1, _CHUNK // n) if x.is_cpu else len(x)
    if rows >= len(x):
        return largest(torch.addmm(bias, x, W), k)
    scores = torch.empty(rows, n, dtype=x.dtype)
    values = torch.empty(len(x), k, dtype=x.dtype)
    indices = torch.empty(len(x), k, dtype=torch.long)
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        found = largest(torch.addmm(bias, part, W, out=scores[: len(part)]), k)
        values[start : start + rows], indices[start : start + rows] = found
    return values, indices


class _Uses:
    """Which tokens use each feature: the entries of `indices [batch, k]` in the order of the n features."""

    def __init__(self, indices: Tensor, n: int):
        flat = indices.flatten()
        if flat.is_cpu and n <= 1 << 16:  # numpy sorts 16-bit numbers by counting
            self.order = torch.from_numpy(np.argsort(flat.numpy().astype(np.uint16), kind="stable"))
        else:
            self.order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=n)
        self.starts = counts.cumsum(0) - counts
        self.tokens = torch.div(self.order, indices.shape[1], rounding_mode="floor")

    def sum(self, values: Tensor, rows: Tensor) -> Tensor:
        """The transpose of `weighted_rows`: for each feature, the sum of `values[b, k] * rows[b]` over its uses."""
        weights = values.flatten()[self.order]
        return F.embedding_bag(self.tokens, rows, self.starts, per_sample_weights=weights, mode="sum")


def _sums(values: Tensor, indices: Tensor, n: int) -> Tensor:
    """For each of n features, the sum of the values at its uses."""
    return torch.zeros(n, dtype=values.dtype, device=values.device).index_add_(0, indices.flatten(), values.flatten())


class _WeightedRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, indices, rows):
        with torch.enable_grad():  # embedding_bag's own gradient for the weights is fast; that for the rows is not
            weights = values.detach().requires_grad_()
            out = F.embedding_bag(indices, rows.detach(), per_sample_weights=weights, mode="sum")
        ctx.own = out, weights
        ctx.save_for_backward(values, indices, rows)
        return out.detach()

    @staticmethod
    def backward(ctx, grad):
        values, indices, rows = ctx.saved_tensors
        grad = grad.contiguous()
        (d_values,) = torch.autograd.grad(*ctx.own, grad, retain_graph=True)
        return d_values, None, _Uses(indices, len(rows)).sum(values, grad)


class _TopScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, W, bias, k):
        values, indices = _select(x, W, bias, k)
        ctx.save_for_backward(x, indices, values)
        ctx.n = W.shape[1]
        ctx.mark_non_differentiable(indices)
        return values.relu().to(x.dtype), indices  # scores are bfloat16 under autocast, gradients are not

    @staticmethod
    def backward(ctx, grad, _indices):
        x, indices, values = ctx.saved_tensors
        grad = grad * (values > 0)
        return None, _Uses(indices, ctx.n).sum(grad, x).T, _sums(grad, indices, ctx.n), None
