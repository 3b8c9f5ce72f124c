"""The sparse products of TopK and BatchTopK: gradients of the active features only, and a fast selection.

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

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..core import largest

_CHUNK = 1 << 22  # scores held at once on a CPU: 16 MiB


def weighted_rows(
    values: Float[Tensor, "*uses"],
    indices: Int[Tensor, "*uses"],
    rows: Float[Tensor, "n d"],
    starts: Int[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch d"]:
    """`sum_j values[b, j] * rows[indices[b, j]]`, differentiable in `values` and `rows`.

    Each token has k uses (`values [batch, k]`), or, where `starts` is given, those of the flat `values` between its
    start and that of the next token.
    """
    return _WeightedRows.apply(values, indices, rows, starts)


def top_scores(
    x: Float[Tensor, "batch d"], W: Float[Tensor, "d n"], bias: Float[Tensor, " n"], k: int
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """`TopK(relu(x @ W + bias))`: values and indices, in no particular order.

    Differentiable in `W` and `bias`, not in `x`.
    """
    return _TopScores.apply(x, W, bias, k)


def batch_scores(
    x: Float[Tensor, "batch d"],
    W: Float[Tensor, "d n"],
    bias: Float[Tensor, " n"],
    count: int,
    cut: Callable[[Tensor], Tensor],
) -> tuple[Float[Tensor, " uses"], Int[Tensor, " uses"], Int[Tensor, " uses"], Float[Tensor, ""]]:
    """The positive scores of all tokens together that reach a cut: values, tokens (ascending), features, and the cut.

    `cut` chooses it from the `count` largest of `relu(x @ W + bias)`. Differentiable as `top_scores`.
    """
    return _BatchScores.apply(x, W, bias, count, cut)


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
    """Which tokens use each of n features: entries `indices`, of tokens `tokens`, in the order of the features."""

    def __init__(self, indices: Tensor, tokens: Tensor, n: int):
        flat = indices.flatten()
        if flat.is_cpu and n <= 1 << 16:  # numpy sorts 16-bit numbers by counting
            self.order = torch.from_numpy(np.argsort(flat.numpy().astype(np.uint16), kind="stable"))
        else:
            self.order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=n)
        self.starts = counts.cumsum(0) - counts
        self.tokens = tokens[self.order]

    def sum(self, values: Tensor, rows: Tensor) -> Tensor:
        """The transpose of `weighted_rows`: for each feature, the sum of its values times the rows of their tokens."""
        weights = values.flatten()[self.order]
        return F.embedding_bag(self.tokens, rows, self.starts, per_sample_weights=weights, mode="sum")


def _owners(indices: Tensor, starts: Tensor | None) -> Tensor:
    """The token of each use, flat."""
    if starts is None:
        return torch.arange(len(indices), device=indices.device).repeat_interleave(indices.shape[1])
    ends = torch.cat([starts[1:], starts.new_tensor([len(indices)])])
    return torch.arange(len(starts), device=starts.device).repeat_interleave(ends - starts)


def _sums(values: Tensor, indices: Tensor, n: int) -> Tensor:
    """For each of n features, the sum of the values at its uses."""
    return torch.zeros(n, dtype=values.dtype, device=values.device).index_add_(0, indices.flatten(), values.flatten())


class _WeightedRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, indices, rows, starts):
        with torch.enable_grad():  # embedding_bag's own gradient for the weights is fast; that for the rows is not
            weights = values.detach().requires_grad_()
            out = F.embedding_bag(indices, rows.detach(), starts, per_sample_weights=weights, mode="sum")
        ctx.own = out, weights
        ctx.save_for_backward(values, indices, rows, starts)
        return out.detach()

    @staticmethod
    def backward(ctx, grad):
        values, indices, rows, starts = ctx.saved_tensors
        grad = grad.contiguous()
        (d_values,) = torch.autograd.grad(*ctx.own, grad, retain_graph=True)
        return d_values, None, _Uses(indices, _owners(indices, starts), len(rows)).sum(values, grad), None


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
        uses = _Uses(indices, _owners(indices, None), ctx.n)
        return None, uses.sum(grad, x).T, _sums(grad, indices, ctx.n), None


class _BatchScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, W, bias, count, cut):
        top, places = (part[0] for part in largest(torch.addmm(bias, x, W).view(1, -1), count))
        top = top.relu().to(x.dtype)
        level = cut(top)
        keep = (top >= level) & (top > 0)
        places, order = places[keep].sort()
        tokens, features = places // W.shape[1], places % W.shape[1]
        ctx.save_for_backward(x, tokens, features)
        ctx.n = W.shape[1]
        ctx.mark_non_differentiable(tokens, features, level)
        return top[keep][order], tokens, features, level

    @staticmethod
    def backward(ctx, grad, *_):
        x, tokens, features = ctx.saved_tensors
        return None, _Uses(features, tokens, ctx.n).sum(grad, x).T, _sums(grad, features, ctx.n), None, None
