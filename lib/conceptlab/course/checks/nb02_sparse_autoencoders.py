"""Checks of notebook 02. The oracles are counting, autograd, a search over a grid, invariance and planted features."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..record import Points
from .feedback import check_equal, check_true, passed
from .nb02_training import check_forward, check_revive, check_training_loop

__all__ = [
    "check_forward",
    "check_inference_threshold",
    "check_mean_max_cosine",
    "check_pseudo_gradients",
    "check_revive",
    "check_shrunk",
    "check_training_loop",
    "check_unit_norm",
]

T = TypeVar("T")


def check_inference_threshold(threshold: Callable[[list[Tensor], int], Any]) -> Points:
    """`threshold(batches, k)`: the number above which, on average, k scores per token survive.

    The oracle is the definition (the mean over batches of the smallest score that a batch keeps) on a case done by
    hand, and counting on tokens that were not given.
    """
    name = "BatchTopK's threshold"
    # three batches of two tokens; k = 2 keeps four scores: 9 8 7 6, then 5 4 3 2, then 9 8 7 1
    rows = ([[9.0, 1, 8], [7, 6, 0]], [[5.0, 4, 3], [2, 1, -8]], [[9.0, 1, 0], [8, 7, -1]])
    batches = [torch.tensor(r) for r in rows]
    mistakes = {
        "that is the smallest score kept in the last batch; average over the batches.": 1.0,
        "that is the median over the batches; take the mean.": 2.0,
        "that is the smallest score kept in the first batch; average over the batches.": 6.0,
        "only k scores per batch were counted; a batch of n tokens keeps k * n.": (8.0 + 4.0 + 8.0) / 3,
        "that is the mean over tokens of each token's k-th score, which is TopK's cut.": (8 + 6 + 4 + 1 + 1 + 7) / 6,
        "that is the largest dropped score, or one place too far: the smallest kept one is meant.": (1.0 + 1.0 + 0.0)
        / 3,
    }
    first = check_equal("the case done by hand", _attempt(lambda: threshold(list(batches), 2)), 3.0, mistakes)
    g = torch.Generator().manual_seed(0)
    scores = torch.randn(80, 64, 100, generator=g) + 0.3 * torch.randn(80, 64, 1, generator=g)  # hard and easy tokens
    found = _attempt(lambda: float(threshold(list(scores[:40]), 5)))
    if not isinstance(found, float):
        return passed(name, first, check_true("64 tokens, 100 features", False, "expected one number."))
    l0 = float((scores[40:] > found).float().sum(-1).mean())
    per_token = (scores[40:] > found).sum(-1)
    second = check_true("fresh tokens, k = 5", abs(l0 - 5) < 0.25, f"{l0:.2f} scores per token survive, 5 should.")
    third = check_true("tokens differ", bool(per_token.min() < per_token.max()), "every token keeps equally many.")
    return passed(name, first, second, third)


def check_pseudo_gradients(gradients: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]) -> Points:
    """`gradients(z, threshold, width)`: of `z 1[z > threshold]` and of `1[z > threshold]`, for the threshold.

    Two oracles. Autograd: the rectangle is the derivative of a ramp, so a ramp in place of the step gives the second
    gradient, and `threshold` times it the first. Calculus: the average over evenly spread z must be the derivative of
    the average, which a finite difference gives although each single derivative is zero almost everywhere.
    """
    name = "JumpReLU's gradient"
    g = torch.Generator().manual_seed(0)
    z, theta, width = torch.rand(50, 3, generator=g), torch.tensor([0.3, 0.5, 0.7]), 0.2
    moving = theta.clone().requires_grad_()
    ramp = ((z - moving) / width + 0.5).clamp(0, 1)
    rows = [torch.autograd.grad(row.sum(), moving, retain_graph=True)[0] for row in ramp]
    step_truth = torch.stack(rows)  # [tokens, features]
    jump_truth, kernel = theta * step_truth, -width * step_truth
    found = _attempt(lambda: gradients(z.clone(), theta.clone(), width))
    if not (isinstance(found, tuple | list) and len(found) == 2 and all(isinstance(t, Tensor) for t in found)):
        return passed(name, check_true("two tensors", False, "return the gradient of the jump, then that of the step."))
    mistakes = {
        "the sign: a higher threshold lets fewer features through, so both gradients are negative.": kernel / width,
        "divide by the width: the rectangle has area 1.": -kernel,
        "the rectangle reaches width / 2 to either side, not width.": -((z - theta).abs() < width).float() / width,
        "zero everywhere: that is the true derivative, which teaches nothing.": torch.zeros_like(z),
    }
    first = check_equal("the step against autograd of a ramp", found[1], step_truth, mistakes)
    mistakes = {
        "the jump at the threshold has height `threshold`; the step's gradient is to be multiplied by it.": step_truth,
        "the sign: a higher threshold cuts more off.": -jump_truth,
        "multiplied by z; the method uses the threshold itself (equal only where z = threshold).": -z * kernel / width,
    }
    second = check_equal("the jump", found[0], jump_truth, mistakes)
    grid = torch.linspace(0, 1, 100_001, dtype=torch.float64)[:, None]
    t = torch.tensor([0.4], dtype=torch.float64)
    means = [(grid * (grid > t + e)).mean() for e in (-0.01, 0.01)]
    got = _attempt(lambda: gradients(grid, t, width)[0].mean())
    third = check_equal("its mean against a finite difference", got, (means[1] - means[0]) / 0.02, tol=1e-3)
    return passed(name, first, second, third)


def check_shrunk(shrunk: Callable[[Tensor, float], Tensor]) -> Points:
    """`shrunk(a, l1)`: the `f >= 0` that minimises `(a - f)^2 + l1 f`. The oracle is a search over a fine grid."""
    name = "shrinkage"
    grid = torch.linspace(0, 4, 40_001)
    a = torch.tensor([-1.0, 0.0, 0.1, 0.25, 0.8, 2.0, 3.0])
    results = []
    for l1 in (0.0, 0.5, 1.2):
        truth = torch.stack([grid[((x - grid).square() + l1 * grid).argmin()] for x in a])
        mistakes = {
            "activations may not be negative: cut at zero.": a - l1 / 2,
            "half of it: the derivative of the square is 2 (f - a).": (a - l1).relu(),
            "that is what no penalty gives.": a.relu(),
            "a threshold, not a shrinkage: what survives is shortened as well.": a * (a > l1 / 2),
        }
        label = f"search over a grid, l1 = {l1}"
        results.append(check_equal(label, _attempt(partial(shrunk, a.clone(), l1)), truth, mistakes, tol=2e-4))
    return passed(name, *results)


def check_mean_max_cosine(score: Callable[[Tensor, Tensor], object]) -> Points:
    """`score(truth [n, d], found [m, d])`: mean over planted rows of the largest cosine with a found row."""
    name = "mean max cosine"
    g = torch.Generator().manual_seed(0)
    truth, found = torch.randn(6, 5, generator=g), 3 * torch.randn(9, 5, generator=g)

    def cosine(a: Tensor, b: Tensor) -> float:
        return float(a @ b / (a.norm() * b.norm()))

    table = torch.tensor([[cosine(a, b) for b in found] for a in truth])
    mistakes = {
        "the rows have other norms than 1: divide by them.": (truth @ found.T).amax(1).mean(),
        "the maximum was taken over the planted rows: found rows were scored.": table.amax(0).mean(),
        "the sign counts here: a feature writes its direction, never the opposite.": table.abs().amax(1).mean(),
        "that is the mean over all pairs; take the largest for each planted row first.": table.mean(),
        "that is the largest of all; average over the planted rows.": table.max(),
    }
    first = check_equal("against a double loop", _attempt(lambda: score(truth, found)), table.amax(1).mean(), mistakes)
    mixed = torch.cat([found, 7 * truth[torch.randperm(6, generator=g)]])
    second = check_equal("the truth itself, shuffled and scaled", _attempt(lambda: score(truth, mixed)), 1.0)
    axes = torch.eye(4)
    half = _attempt(lambda: score(axes, axes[:2]))
    third = check_equal("half of four axes found", half, 0.5, {"a missing feature has cosine 0 here.": 1.0})
    return passed(name, first, second, third)


def check_unit_norm(unit_norm: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]) -> Points:
    """`unit_norm(W_enc, b_enc, W_dec)` gives rows of `W_dec` norm 1 and leaves the function computed unchanged.

    The function here is the dictionary before TopK: `relu(x W_enc + b_enc) W_dec`.
    """
    name = "norms into the encoder"
    g = torch.Generator().manual_seed(0)
    W_enc, b_enc = torch.randn(6, 10, generator=g), torch.randn(10, generator=g)
    W_dec, x = 3 * torch.randn(10, 6, generator=g), torch.randn(20, 6, generator=g)

    def output(we: Tensor, be: Tensor, wd: Tensor) -> Tensor:
        return (x @ we + be).relu() @ wd

    norms = W_dec.norm(dim=1)
    unit = W_dec / norms[:, None]
    found = _attempt(lambda: unit_norm(W_enc.clone(), b_enc.clone(), W_dec.clone()))
    shapes = [W_enc.shape, b_enc.shape, W_dec.shape]
    if not isinstance(found, tuple | list) or [t.shape if isinstance(t, Tensor) else None for t in found] != shapes:
        return passed(name, check_true("three tensors", False, "return W_enc, b_enc, W_dec, each with its old shape."))
    columns = W_dec / W_dec.norm(dim=0)
    mistakes = {
        "the columns have norm 1; a feature is a row of W_dec.": columns,
        "W_dec is unchanged: divide each row by its norm.": W_dec,
        "the whole matrix was divided by one number; each row has its own norm.": W_dec / W_dec.norm(),
    }
    first = check_equal("decoder rows", found[2], unit, mistakes)
    truth = output(W_enc, b_enc, W_dec)
    mistakes = {
        "the norms are gone: multiply each feature's encoder column and bias by its norm.": output(W_enc, b_enc, unit),
        "the bias needs the norms as well.": output(W_enc * norms, b_enc, unit),
        "the encoder was divided by the norms; it has to be multiplied.": output(W_enc / norms, b_enc / norms, unit),
    }
    second = check_equal("same output", _attempt(lambda: output(*found)), truth, mistakes)
    return passed(name, first, second)


def _attempt(function: Callable[[], T]) -> T | None:
    """The answer, or None with a line that says what was raised: a check never stops a notebook."""
    try:
        return function()
    except Exception as error:
        print(f"  no   your function raised {type(error).__name__}: {next(iter(str(error).splitlines()), '')[:120]}")
        return None
