"""Checks of notebook 02 that concern training: forward pass and loss, the loop, and features that died.

The oracles are loops over single numbers, Adam's first two steps written out, and what a revived feature must be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..record import Points
from .feedback import call, check_equal, check_true, passed, random_tensor

Weights = dict[str, Tensor]
KEYS = ("W_enc", "b_enc", "W_dec", "b_dec")


def check_forward(forward: Callable[[Tensor, Weights], Any], loss: Callable[[Tensor, Weights, float], Any]) -> Points:
    """`forward(x, p)` gives features and reconstruction, `loss(x, p, l1)` a number. The oracle is a loop over tokens.

    The loss is checked on its own as well: it must call for the features of `p`, not of an earlier call.
    """
    name = "forward pass and loss"
    x, p = random_tensor(5, 3, seed=1) + 0.5, _weights(3, 4)
    f = torch.zeros(5, 4)
    for t in range(5):
        for i in range(4):
            z = sum(float((x[t, d] - p["b_dec"][d]) * p["W_enc"][d, i]) for d in range(3)) + float(p["b_enc"][i])
            f[t, i] = max(z, 0.0)
    x_hat = torch.stack([p["b_dec"] + sum(f[t, i] * p["W_dec"][i] for i in range(4)) for t in range(5)])
    found = call(name, forward, x.clone(), {k: v.clone() for k, v in p.items()})
    if not isinstance(found, tuple | list) or len(found) != 2:
        return passed(name, check_true("two tensors", False, "return the features, then the reconstruction."))
    plain = (x @ p["W_enc"] + p["b_enc"]).relu()
    mistakes: dict[str, Tensor | float | int] = {
        "subtract b_dec from x before the encoder.": plain,
        "the features may not be negative: the ReLU is missing.": (x - p["b_dec"]) @ p["W_enc"] + p["b_enc"],
        "b_enc is missing.": ((x - p["b_dec"]) @ p["W_enc"]).relu(),
    }
    first = check_equal("features", found[0], f, mistakes)
    second = check_equal("reconstruction", found[1], x_hat, {"add b_dec at the end.": x_hat - p["b_dec"]})
    squared, variance, total = _sums(x, x_hat, f)
    results = [first, second]
    for l1 in (0.0, 0.7):
        got = call(name, loss, x.clone(), {k: v.clone() for k, v in p.items()}, l1)
        truth = squared / variance + l1 * total / (variance * 5) ** 0.5
        wrong: dict[str, Tensor | float | int] = {
            "the squared error is not divided by the variance V of the batch.": squared
            + l1 * total / (variance * 5) ** 0.5,
            "the price is not divided by the root of V n.": squared / variance + l1 * total,
            "the price counts features that are on; L1 adds up how strong they are.": squared / variance
            + l1 * float((f > 0).sum()) / (variance * 5) ** 0.5,
            "the price is missing.": squared / variance,
            "V is measured around the mean of the batch, not around zero.": squared / float(x.square().sum())
            + l1 * total / (float(x.square().sum()) * 5) ** 0.5,
        }
        wrong = {k: v for k, v in wrong.items() if abs(float(v) - truth) > 1e-4}
        results.append(check_equal(f"loss at a price of {l1}", got, truth, wrong))
    return passed(name, *results)


def _sums(x: Tensor, x_hat: Tensor, f: Tensor) -> tuple[float, float, float]:
    """Squared error, variance and sum of features, by loops."""
    mean = [sum(float(row[d]) for row in x) / len(x) for d in range(x.shape[1])]
    pairs = [(float(a), float(b)) for a, b in zip(x.flatten(), x_hat.flatten(), strict=True)]
    variance = sum((float(row[d]) - mean[d]) ** 2 for row in x for d in range(x.shape[1]))
    return sum((a - b) ** 2 for a, b in pairs), variance, sum(float(v) for v in f.flatten())


def _weights(d_in: int, d_sae: int) -> Weights:
    sizes = {"W_enc": (d_in, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    return {name: random_tensor(*size, seed=7 + i) for i, (name, size) in enumerate(sizes.items())}


# ---- the loop ------------------------------------------------------------------------------------------------------
def check_training_loop(train: Callable[..., Any]) -> Points:
    """`train(x, p, loss_of, steps, lr, batch_size, seed)` changes `p` in place and returns the losses.

    Every token carries its number, so that the batches can be seen; a loss whose slope turns round tells a loop that
    forgets to clear its gradients, by Adam's first two steps written out.
    """
    name = "a training loop"
    (batches, history, p), (again, _, _), (other, _, _) = (_watched(train, seed) for seed in (3, 3, 4))
    if not batches or not isinstance(history, list | tuple) or not all(isinstance(h, int | float) for h in history):
        hint = "call `loss_of(batch, p)` at every step and return the losses as a list of plain numbers (`.item()`)."
        return passed(name, check_true("a list of losses", False, hint))
    want = [float(sum(b)) / 100 for b in batches]
    results = [
        check_true(
            "one loss per step, in order",
            len(history) == 12 == len(batches) and all(abs(a - b) < 1e-3 for a, b in zip(history, want, strict=True)),
            f"12 steps were asked for; {len(batches)} batches were seen and {len(history)} losses returned.",
        ),
        check_true(
            "batches of the asked size",
            all(len(b) == 8 for b in batches),
            f"8 tokens a step were asked for; the first batch has {len(batches[0])}.",
        ),
        check_true(
            "new tokens at every step",
            len({tuple(b) for b in batches}) == len(batches) and len({t for b in batches for t in b}) > 50,
            "the steps see the same tokens; draw a new batch inside the loop.",
        ),
        check_true(
            "the seed decides which",
            batches == again and batches != other,
            "the same seed must give the same batches and another seed others: a torch.Generator with that seed.",
        ),
        check_true(
            "decoder rows of length 1",
            bool(((p["W_dec"].norm(dim=1) - 1).abs() < 1e-4).all()),
            "after every step, divide each row of W_dec by its length (inside `torch.no_grad()`).",
        ),
        _two_steps(train),
    ]
    return passed(name, *results)


def _watched(train: Callable[..., Any], seed: int) -> tuple[list[list[float]], Any, Weights]:
    """Numbers of the tokens in every batch, what was returned, and the weights afterwards."""
    x = torch.stack([torch.arange(100.0), torch.ones(100)], 1)
    p = {k: v.requires_grad_() for k, v in _weights(2, 3).items()}
    batches: list[list[float]] = []

    def loss_of(batch: Tensor, weights: Weights) -> Tensor:
        batches.append(batch[:, 0].tolist())
        slope = sum((weights[k] - weights[k].detach()).sum() for k in KEYS)
        return batch[:, 0].sum() / 100 + slope

    history = call("a training loop", lambda: train(x, p, loss_of, steps=12, lr=0.01, batch_size=8, seed=seed))
    return batches, history, {k: v.detach() for k, v in p.items()}


def _two_steps(train: Callable[..., Any]) -> bool:
    """b_dec after slopes of +1 and -1: Adam's two steps, and those of a loop that adds its gradients up."""
    p = {k: v.requires_grad_() for k, v in _weights(2, 3).items()}
    before, slopes = p["b_dec"].detach().clone(), [1.0, -1.0]

    def loss_of(batch: Tensor, weights: Weights) -> Tensor:
        return slopes.pop(0) * weights["b_dec"].sum() + 0 * sum(weights[k].sum() for k in KEYS)

    call("a training loop", lambda: train(torch.ones(9, 2), p, loss_of, steps=2, lr=0.1, batch_size=4, seed=0))
    got = p["b_dec"].detach() - before
    second = (0.9 * 0.1 - 0.1) / (1 - 0.81) / ((0.999 * 0.001 + 0.001) / (1 - 0.999**2)) ** 0.5
    piled = 0.9 * 0.1 / (1 - 0.81) / (0.999 * 0.001 / (1 - 0.999**2)) ** 0.5
    mistakes = {
        "gradients of earlier steps are added up: clear them (`zero_grad`) at every step.": -0.1 * (1 + piled),
        "nothing moved: call `backward()` and the optimiser's `step()`.": 0.0,
    }
    wrong = {m: torch.full((2,), value) for m, value in mistakes.items()}
    return check_equal("two steps of Adam, written out", got, torch.full((2,), -0.1 * (1 + second)), wrong, tol=1e-3)


# ---- dead features -------------------------------------------------------------------------------------------------
def check_revive(revive: Callable[..., Any]) -> Points:
    """`revive(p, dead, x, x_hat, generator)` points dead features at errors of badly rebuilt tokens, in place."""
    name = "dead features revived"
    x = random_tensor(40, 6, seed=2)
    x_hat = x.clone()
    errors = torch.nn.functional.normalize(random_tensor(4, 6, seed=3), dim=1) * torch.tensor([[3.0], [1], [1], [1]])
    x_hat[10:14] -= errors  # all other tokens are rebuilt perfectly
    dead = torch.tensor([False, True, False, True, True, False, False, False])
    old = _weights(6, 8)
    old["W_enc"][:, dead] *= 50  # the length is that of living columns
    runs = []
    for seed in (0, 0, 1, 2, 3, 4, 5, 6):
        p = {k: v.clone().requires_grad_() for k, v in old.items()}
        call(name, revive, p, dead.clone(), x.clone(), x_hat.clone(), torch.Generator().manual_seed(seed))
        runs.append({k: v.detach() for k, v in p.items()})
    one = torch.arange(8) == 3
    firsts = []
    for seed in range(60):
        p = {k: v.clone().requires_grad_() for k, v in old.items()}
        call(name, revive, p, one.clone(), x.clone(), x_hat.clone(), torch.Generator().manual_seed(seed))
        firsts.append(p["W_dec"].detach()[3])
    drawn = torch.nn.functional.cosine_similarity(torch.stack(firsts)[:, None], errors[None], dim=-1).argmax(1)
    return passed(name, *_revived(old, dead, errors, runs, float((drawn == 0).double().mean())))


def _revived(old: Weights, dead: Tensor, errors: Tensor, runs: list[Weights], worst: float) -> list[bool]:
    unit = errors / errors.norm(dim=1, keepdim=True)
    rows = torch.stack([p["W_dec"][dead] for p in runs])  # [runs, dead, d_in]
    near = rows @ unit.T / rows.norm(dim=-1, keepdim=True).clamp_min(1e-9)
    kept = all(
        torch.equal(p["W_dec"][~dead], old["W_dec"][~dead])
        and torch.equal(p["W_enc"][:, ~dead], old["W_enc"][:, ~dead])
        and torch.equal(p["b_enc"][~dead], old["b_enc"][~dead])
        and torch.equal(p["b_dec"], old["b_dec"])
        for p in runs
    )
    length = 0.2 * old["W_enc"][:, ~dead].norm(dim=0).mean()
    column = torch.stack([p["W_enc"][:, dead].T for p in runs])
    return [
        check_true("living features and b_dec stay as they are", kept, "write only to the places of `dead`."),
        check_true(
            "rows are errors of badly rebuilt tokens",
            bool((near.amax(-1) > 0.999).all()),
            "a revived row of W_dec is x - x_hat of a drawn token (not x, and not the opposite).",
        ),
        check_true(
            "of length 1",
            bool(((rows.norm(dim=-1) - 1).abs() < 1e-4).all()),
            "divide the row by its length.",
        ),
        check_true(
            "the encoder column: same direction, a fifth of a living length",
            bool(torch.allclose(column, length * rows, atol=1e-3)),
            "W_enc's column is the new row times 0.2 times the mean length of the living columns.",
        ),
        check_true(
            "b_enc starts at 0", all(bool((p["b_enc"][dead] == 0).all()) for p in runs), "set b_enc of the dead to 0."
        ),
        check_true(
            "worse tokens are drawn more often",
            worst > 0.88,  # 81 of 84; in proportion to the squared error it is 9 of 12
            f"the worst token was drawn in {worst:.0%} of 60 runs, 96 % is right: square the squared error.",
        ),
        check_true(
            "the generator decides",
            torch.equal(runs[0]["W_dec"], runs[1]["W_dec"]) and len({str(c.tolist()) for c in rows[1:]}) > 1,
            "pass `generator=generator` to torch.multinomial.",
        ),
    ]
