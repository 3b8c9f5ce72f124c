"""Checks of notebook 02. The oracles are counting, autograd, a search over a grid, invariance and planted features."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..record import Points
from . import answers_sae
from .feedback import check_equal, check_true, passed, random_tensor

T = TypeVar("T")


def _parameters(d_in: int, d_sae: int, seed: int) -> dict[str, Tensor]:
    """Random parameters of a dictionary, decoder rows of length 1."""
    g = torch.Generator().manual_seed(seed)
    W_dec = torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=g), dim=1)
    b_enc, b_dec = (0.3 * torch.randn(n, generator=g) for n in (d_sae, d_in))
    return {"W_enc": torch.randn(d_in, d_sae, generator=g), "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec}


def check_forward(forward: Callable[[Tensor, dict[str, Tensor]], tuple[Tensor, Tensor]]) -> Points:
    """`forward(x, p) -> (features, reconstruction)` of a ReLU dictionary against a loop over tokens and features."""
    name, p, x = "forward pass of a dictionary", _parameters(5, 8, 1), 2 * random_tensor(6, 5, seed=2)
    f = torch.zeros(6, 8)
    for t in range(6):
        for j in range(8):
            z = sum(float((x[t, d] - p["b_dec"][d]) * p["W_enc"][d, j]) for d in range(5)) + float(p["b_enc"][j])
            f[t, j] = max(z, 0.0)
    rebuilt = torch.stack([sum(f[t, j] * p["W_dec"][j] for j in range(8)) + p["b_dec"] for t in range(6)])
    found = _attempt(lambda: forward(x.clone(), {k: v.clone() for k, v in p.items()}))
    pair = found if isinstance(found, tuple | list) and len(found) == 2 else (None, None)
    z = (x - p["b_dec"]) @ p["W_enc"] + p["b_enc"]
    mistakes = {
        "subtract b_dec from x before the encoder.": (x @ p["W_enc"] + p["b_enc"]).relu(),
        "the encoder's bias is missing.": (z - p["b_enc"]).relu(),
        "negative scores must become 0 (relu).": z,
    }
    first = check_equal("features", pair[0], f, mistakes)
    mistakes = {"add b_dec back: the features describe x - b_dec.": f @ p["W_dec"]}
    second = check_equal("reconstruction", pair[1], rebuilt, mistakes)
    return passed(name, first, second)


def check_dictionary_loss(loss: Callable[[Tensor, Tensor, Tensor, float], Tensor]) -> Points:
    """`loss(x, x_hat, f, l1)`: error and penalty, both summed inside a token and averaged over tokens."""
    name, l1 = "loss of a dictionary", 0.7
    x, x_hat, f = random_tensor(6, 5, seed=3), random_tensor(6, 5, seed=4), random_tensor(6, 8, seed=5).relu()
    error = sum(float(v) ** 2 for v in (x - x_hat).flatten()) / 6
    price = l1 * sum(float(v) for v in f.flatten()) / 6
    mistakes = {
        "the price of the features is missing.": error,
        "averaged over the numbers inside a token as well; sum there.": error / 5 + price,
        "that price counts features that are on; L1 adds up their values.": error + l1 * float((f > 0).sum()) / 6,
        "summed over tokens; take the mean over tokens.": 6 * (error + price),
        "the features are averaged inside a token; sum there.": error + price / 8,
        "the error is a length; take its square.": float((x - x_hat).norm(dim=1).mean()) + price,
    }
    results = [check_equal("six tokens", _attempt(lambda: loss(x, x_hat, f, l1)), error + price, mistakes)]
    results.append(check_equal("no price", _attempt(lambda: loss(x, x_hat, f, 0.0)), error))
    results.append(check_equal("perfect and silent", _attempt(lambda: 1 + loss(x, x, 0 * f, l1)), 1.0))
    return passed(name, *results)


def check_train(train: Callable[..., Any]) -> Points:
    """`train(data, p, steps, l1, lr, generator, features, penalty)` on a small planted world."""
    name, g = "a training loop", torch.Generator().manual_seed(0)
    truth = torch.nn.functional.normalize(torch.randn(12, 8, generator=g), dim=1)
    data = (torch.rand(4_000, 12, generator=g) * (torch.rand(4_000, 12, generator=g) < 0.15)) @ truth
    watched = _Watched()

    def run(steps: int, seed: int) -> tuple[list[float], dict[str, Tensor], dict[str, Tensor]]:
        p = _parameters(8, 16, 2)
        p["W_enc"] = p["W_dec"].T.clone()
        start = {k: v.clone() for k, v in p.items()}
        given = train(
            data,
            p,
            steps,
            0.01,
            3e-3,
            torch.Generator().manual_seed(seed),
            watched.features,
            answers_sae.dictionary_loss,
        )
        return [float(v) for v in given], p, start

    first, second, other = (_attempt(partial(run, 150, seed)) for seed in (1, 1, 2))
    if first is None or second is None or other is None:
        return passed(name, check_true("a list of losses", False, "return the loss of every step, as numbers."))
    history, p, start = first
    norms = p["W_dec"].detach().norm(dim=1)
    n, fall = len(history), sum(history[-20:]) / max(sum(history[:20]), 1e-9)
    moved = [k for k, v in p.items() if not torch.equal(v.detach(), start[k])]
    results = [
        check_true("one loss per step", n == 150, f"{n} losses for 150 steps."),
        check_true("the loss falls", n == 150 and fall < 0.5, f"the last losses are {fall:.0%} of the first."),
        check_true("all four parameters learn", len(moved) == 4, f"changed: {', '.join(moved) or 'none'}."),
        check_true("decoder rows have length 1", bool((norms - 1).abs().max() < 1e-4), "divide W_dec by its row norms "
                   "after every step, inside torch.no_grad()."),
        check_true("gradients are not carried over", watched.clean, "call zero_grad() before every backward()."),
        check_true("the generator draws the batches", history == second[0] != other[0], "pass `generator` to "
                   "torch.randint: equal seeds must give equal losses, others must not."),
    ]  # fmt: skip
    return passed(name, *results)


class _Watched:
    """The forward pass, which looks at each call whether gradients of earlier steps were added up."""

    def __init__(self) -> None:
        self.clean, self.own = True, None

    def features(self, x: Tensor, p: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        grad = p["b_dec"].grad
        if grad is None:
            self.own = None
        elif bool(grad.any()) and self.own is not None and not torch.allclose(grad, self.own, rtol=1e-3, atol=1e-6):
            self.clean = False
        copies = {k: v.detach().clone().requires_grad_() for k, v in p.items()}
        with torch.enable_grad():
            f, x_hat = answers_sae.forward(x, copies)
            loss = answers_sae.dictionary_loss(x, x_hat, f, 0.01)
        self.own = torch.autograd.grad(loss, copies["b_dec"])[0]
        return answers_sae.forward(x, p)


def check_revive(revive: Callable[..., dict[str, Tensor]]) -> Points:
    """`revive(p, dead, x, x_hat)`: dead features point at the worst tokens' errors, all others are untouched."""
    name, p = "reviving dead features", _parameters(5, 8, 6)
    x, x_hat, dead = random_tensor(9, 5, seed=7), 0.5 * random_tensor(9, 5, seed=8), torch.zeros(8, dtype=torch.bool)
    dead[[2, 5, 6]] = True
    before = {k: v.clone() for k, v in p.items()}
    found = _attempt(lambda: revive(p, dead, x, x_hat))
    if not isinstance(found, dict) or found.keys() != before.keys():
        return passed(name, check_true("parameters", False, "return a dictionary with the same four names."))
    size = [float((x[t] - x_hat[t]).square().sum()) for t in range(9)]
    worst = sorted(range(9), key=lambda t: -size[t])[:3]
    rows = torch.stack([(x[t] - x_hat[t]) / size[t] ** 0.5 for t in worst])
    tokens = torch.stack([x[t] / x[t].norm() for t in worst])
    mistakes = {
        "these rows point at the tokens; point at what is missing of them, x - x_hat.": tokens,
        "the sign: the error is x - x_hat.": -rows,
        "the decoder rows need length 1.": torch.stack([x[t] - x_hat[t] for t in worst]),
        "the best tokens were taken; take those with the largest error.": _unit_errors(x, x_hat, size, False),
    }
    kept = all(torch.equal(found[k][..., ~dead] if k == "W_enc" else found[k][~dead], before[k][..., ~dead]
               if k == "W_enc" else before[k][~dead]) for k in ("W_enc", "W_dec", "b_enc"))  # fmt: skip
    results = [
        check_equal("decoder rows of the dead", found["W_dec"][dead], rows, mistakes),
        check_equal("their encoder columns", found["W_enc"][:, dead].T, rows),
        check_equal("their biases", found["b_enc"][dead] + 1, torch.ones(3)),
        check_true("the living are untouched", kept, "change the dead features only."),
        check_true("the old parameters are left", all(torch.equal(p[k], before[k]) for k in p), "clone them first."),
    ]
    return passed(name, *results)


def _unit_errors(x: Tensor, x_hat: Tensor, size: list[float], largest: bool) -> Tensor:
    chosen = sorted(range(len(size)), key=lambda t: -size[t] if largest else size[t])[:3]
    return torch.stack([(x[t] - x_hat[t]) / size[t] ** 0.5 for t in chosen])


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


def _attempt(function: Callable[[], T]) -> T | None:
    """The answer, or None with a line that says what was raised: a check never stops a notebook."""
    try:
        return function()
    except Exception as error:
        print(f"  no   your function raised {type(error).__name__}: {next(iter(str(error).splitlines()), '')[:120]}")
        return None
