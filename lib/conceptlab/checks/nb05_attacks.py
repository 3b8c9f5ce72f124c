"""Checks of notebook 05: the recovered share, and a LoRA layer. Oracles: hand arithmetic, invariances, autograd."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from .feedback import call, check_equal, check_true, passed


def check_share(share: Callable) -> None:
    """`share(original, erased, attacked)`: lists of one score per question -> a number, nan where it has no meaning."""
    o, e, a = [-1.0, -1.0, -2.0], [-3.0, -2.0, -2.5], [-2.0, -1.0, -2.5]  # means -4/3, -7.5/3, -5.5/3
    truth = 2.0 / 3.5
    mistakes = {
        "you averaged the ratios of single questions; a question with a tiny gap then counts most. "
        "Take the means first.": (0.5 + 1.0 + 0.0) / 3,
        "that is attacked / original; subtract what the erased model still knows from both.": 5.5 / 4,
        "that is the share that stayed erased; you want 1 minus it.": 1 - truth,
        "numerator right, but divide by original - erased.": 2.0 / 3,
    }
    results = [check_equal("a small case by hand", call("recovered share", share, o, e, a), truth, mistakes)]
    results.append(check_equal("no attack gives 0", call("recovered share", share, o, e, e), 0.0))
    results.append(check_equal("the original model gives 1", call("recovered share", share, o, e, o), 1.0))
    better = [x + 1.0 for x in o]
    results.append(
        check_equal(
            "an attacked model better than the original gives more than 1",
            call("recovered share", share, o, e, better),
            1 + 3 / 3.5,
            {"do not clip: a share above 1 says that the text taught something new.": 1.0},
        )  # fmt: skip
    )
    shifted = call("recovered share", share, *([x + 5 for x in column] for column in (o, e, a)))
    results.append(check_equal("adding a constant to all scores changes nothing", shifted, truth))
    for name, before in (("nothing was erased", e), ("the edit helped", [-3.0, -2.5, -3.0])):
        value = call("recovered share", share, before, e, a)
        good = isinstance(value, float | int | torch.Tensor) and math.isnan(float(value))
        results.append(check_true(f"{name}: nan", good, "there is no share of nothing; return float('nan')."))
    passed("recovered share", *results)


def check_lora(LoRA: type) -> None:
    """`LoRA(linear, rank, alpha)`: parameters A `[rank, in]` and B `[out, rank]`, `forward(x)`, `merged()`."""
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(6, 4, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(4, 6, generator=generator))
    x = torch.randn(5, 6, generator=generator)
    try:
        layer = LoRA(linear, rank=2, alpha=6.0)
        shapes = list(layer.A.shape) == [2, 6] and list(layer.B.shape) == [4, 2]
        start = layer(x)
    except Exception as error:
        check_true("it can be made and called", False, f"{type(error).__name__}: {error}")
        return passed("LoRA", False)
    results = [check_true("shapes of A and B", shapes, "A is [rank, in] and B is [out, rank].")]
    if not shapes:
        return passed("LoRA", *results)
    same = start.shape == (5, 4) and torch.equal(start, linear(x))
    results.append(
        check_true("the untrained layer equals the frozen one exactly", same, "start with B = 0, so that B A = 0.")
    )
    start.square().sum().backward()
    moves = layer.B.grad is not None and bool(layer.B.grad.abs().max() > 0)
    hint = "B gets no gradient: use x @ A.T @ B.T in forward, and do not start with A = 0 as well."
    results.append(check_true("training can begin: B has a gradient", moves, hint))
    frozen = linear.weight.grad is None
    results.append(check_true("the frozen weight gets no gradient", frozen, "call linear.requires_grad_(False)."))
    results += _check_trained(layer, linear, x, generator)
    return passed("LoRA", *results)


@torch.no_grad()
def _check_trained(layer, linear, x, generator) -> list[bool]:
    layer.A.copy_(torch.randn(2, 6, generator=generator))
    layer.B.copy_(torch.randn(4, 2, generator=generator))
    change = torch.zeros(4, 6)
    for r in range(2):  # sum of outer products
        change += torch.outer(layer.B[:, r], layer.A[r])
    truth = x @ (linear.weight + 3.0 * change).T
    mistakes = {
        "the scale alpha / rank is missing.": x @ (linear.weight + change).T,
        "the scale is alpha / rank, not alpha.": x @ (linear.weight + 6.0 * change).T,
        "the frozen layer's output is missing.": x @ (3.0 * change).T,
        "A and B do not act yet.": x @ linear.weight.T,
    }
    first = check_equal("after training: W x + (alpha / rank) B A x", call("forward pass", layer, x), truth, mistakes)
    merged = call("merged weight", lambda: x @ layer.merged().T)
    wrong = {"merged() leaves the change out.": x @ linear.weight.T}
    return [first, check_equal("the merged weight gives the same output", merged, truth, mistakes | wrong)]
