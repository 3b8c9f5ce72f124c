"""Checks of notebook 10. Oracles: enumeration, automatic differentiation, loops over items."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from ..record import Points
from .feedback import call, check_equal, passed, random_tensor


def check_memorised(memorised: Callable) -> Points:
    """`memorised(correct)`: from which layer on (from 1) every exit is right. Oracle: a loop."""
    correct = torch.rand(40, 6, generator=torch.Generator().manual_seed(0)) < 0.7
    edge = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1], [1, 0, 1, 1]], dtype=torch.bool)
    results = []
    for name, table in (("40 items, 6 layers", correct), ("always, never, lost again, last only", edge)):
        n = table.shape[1]
        truth = [next((i + 1 for i in range(n) if bool(row[i:].all())), n) for row in table]
        first = [next((i + 1 for i in range(n) if bool(row[i])), n) for row in table]
        mistakes = {
            "that is the first right exit; a later one may lose the answer again.": torch.tensor(first),
            "layers count from 1 here.": torch.tensor(truth) - 1,
            "count the layers, not how many of them are right.": table.sum(1),
        }
        found = call("memorised", memorised, table.clone())
        results.append(check_equal(name, found, torch.tensor(truth), mistakes))
    one = call("memorised", memorised, torch.ones(3, 1, dtype=torch.bool))
    results.append(check_equal("a model of one layer", one, torch.ones(3)))
    return passed("memorised layer", *results)


def check_gradient(gradient: Callable) -> Points:
    """`gradient(s, R)`: of the expected reward with respect to the scores. Oracle: automatic differentiation."""
    results = []
    for name, (n, layers, scale) in {"8 items, 6 layers": (8, 6, 1.0), "nearly certain stops": (5, 4, 8.0)}.items():
        s = (scale * random_tensor(n, layers, seed=1)).double().requires_grad_(True)
        R = random_tensor(n, layers, seed=2).double()
        p = s.sigmoid()
        going = torch.cat([torch.ones(n, 1), (1 - p[:, :-1]).cumprod(1)], 1)
        q = torch.cat([p[:, :-1], torch.ones(n, 1)], 1) * going
        (truth,) = torch.autograd.grad((q * R).sum(), s)
        p, q = p.detach(), q.detach()
        mean = (q * R).sum(1, keepdim=True)
        mistakes = {
            "R - (mean over all exits) is the softmax rule; here going on leads to later exits only.": q * (R - mean),
            "q (R - mean): compare with what going on brings, and mind the slope 1 - p.": q * (1 - p) * (R - mean),
            "the reward of going on is missing.": q * (1 - p) * R,
            "the sign is turned: this descends.": -truth,
        }
        found = call("gradient", gradient, s.detach().clone(), R.clone())
        results.append(check_equal(name, found, truth, mistakes, tol=1e-6))
    found = call("gradient", gradient, random_tensor(3, 5).double(), torch.full((3, 5), 2.0).double())
    results.append(check_equal("equal rewards: nothing to gain", found, torch.zeros(3, 5)))
    return passed("exact gradient", *results)


def check_rewards(rewards: Callable) -> Points:
    """`rewards(losses, alpha, ml)`: `-CE_t - alpha (1 - ML / L) t`, t from 1. Oracle: a loop."""
    losses = random_tensor(6, 4).abs()
    ml = torch.tensor([1, 2, 3, 4, 4, 1])
    alpha = 0.3
    truth = losses.clone()
    for i in range(6):
        for j in range(4):
            truth[i, j] = -losses[i, j] - alpha * (1 - ml[i] / 4) * (j + 1)
    t = torch.arange(1, 5)
    mistakes = {
        "that is the released code: nothing in it speaks for leaving early.": -losses,
        "depth counts from 1: the first exit has used one layer.": -losses - alpha * (1 - ml / 4)[:, None] * (t - 1),
        "easy items (small ML) pay the full price, hard ones nothing: 1 - ML / L.": -losses
        - alpha * (ml / 4)[:, None] * t,
        "that is the plain reward; the hardness is missing.": -losses - alpha * t,
        "a cost lowers the reward.": -losses + alpha * (1 - ml / 4)[:, None] * t,
    }
    found = call("rewards", rewards, losses.clone(), alpha, ml.clone())
    results = [check_equal("six items, four layers", found, truth, mistakes)]
    hard = call("rewards", rewards, losses.clone(), 5.0, torch.full((6,), 4))
    results.append(check_equal("the hardest items pay nothing for depth", hard, -losses))
    return passed("reward", *results)


def check_advantages(advantages: Callable) -> Points:
    """`advantages(R)` `[k, n]`: with it the mean gradient over all draws is the exact one. Oracle: all k-tuples."""
    q = torch.tensor([0.2, 0.5, 0.3]).double()
    reward = torch.tensor([1.0, -2.0, 0.5]).double()
    truth = q * (reward - (q * reward).sum())  # gradient with respect to the logits of q
    results, drawn = [], random_tensor(4, 5, seed=3)
    found = call("advantages", advantages, drawn.clone())
    others = (drawn.sum(0) - drawn) / 3
    mistakes = {
        "the copy's own reward is in the baseline: that shrinks the gradient to (k - 1) / k.": drawn - drawn.mean(0),
        "there is no baseline: right on average, but noisy.": drawn,
        "copies are the first dimension: average over k, not over items.": drawn - drawn.mean(1, keepdim=True),
        "do not divide by the standard deviation: that changes the gradient.": (drawn - drawn.mean(0)) / drawn.std(0),
    }
    results.append(check_equal("each against the mean of the others", found, drawn - others, mistakes))
    for k in (2, 3):
        mean = torch.zeros(3).double()
        for draw in itertools.product(range(3), repeat=k):
            at = torch.tensor(draw)
            a = call("advantages", advantages, reward[at][:, None])
            if not isinstance(a, Tensor) or a.shape != (k, 1):
                results.append(check_equal(f"mean over all {3**k} draws of {k}", a, torch.zeros(k, 1)))
                break
            mean += q[at].prod() * (a.double() * (torch.eye(3)[at].double() - q)).mean(0)
        else:
            small = {"the mean is (k - 1) / k of the gradient.": truth * (k - 1) / k}
            results.append(check_equal(f"mean over all {3**k} draws of {k}", mean, truth, small))
    return passed("advantages", *results)


def check_aligned(aligned: Callable) -> Points:
    """`aligned(values, losses)`: `[B, T]` per token and `[B (T - 1)]` shifted losses, paired. Oracle: a double loop."""
    B, T = 3, 5
    values = torch.arange(B * T).view(B, T).float()
    losses = 100 + torch.arange(B * (T - 1)).float()
    truth = torch.zeros(B, T - 1, 2)
    for b in range(B):
        for t in range(T - 1):
            truth[b, t] = torch.tensor([values[b, t], losses[b * (T - 1) + t]])
    wrong = torch.stack([values.flatten()[: B * (T - 1)], losses], 1).view(B, T - 1, 2)
    late = torch.stack([values[:, 1:], losses.view(B, T - 1)], -1)
    mistakes = {
        "the released code: row b is off by b tokens. Drop the last token of every row first.": wrong,
        "the exit that chose a prediction stands at the token before it: drop the last, not the first.": late,
    }
    found = call("aligned", aligned, values.clone(), losses.clone())
    results = [check_equal("three rows of five tokens", found, truth, mistakes)]
    one = call("aligned", aligned, values[:1].clone(), losses[: T - 1].clone())
    results.append(check_equal("one row", one, truth[:1]))
    return passed("alignment", *results)


def check_dealt(dealt: Callable) -> Points:
    """`dealt(correct, depth)`: expected accuracy per item when depths are dealt anew. Oracle: all ways of dealing."""
    correct = torch.rand(5, 4, generator=torch.Generator().manual_seed(1)) < 0.5
    depth = torch.tensor([1, 4, 4, 2, 1])
    ways = list(itertools.permutations(depth.tolist()))
    truth = torch.stack([correct.float()[torch.arange(5), torch.tensor(w) - 1] for w in ways]).mean(0)
    own = correct.float()[torch.arange(5), depth - 1]
    mistakes = {
        "those are the items' own depths: nothing was dealt.": own,
        "every layer has the same share here; use the depths that occur.": correct.float().mean(1),
        "depth d is column d - 1.": correct.float() @ (torch.bincount(depth, minlength=4)[:4].float() / 5),
        "one number per item: average over the depths, not over the items.": correct.float().mean(0),
        "the mean depth for everyone is a fixed exit, not a mixture.": correct.float()[
            :, int(depth.float().mean()) - 1
        ],
    }
    found = call("dealt", dealt, correct.clone(), depth.clone())
    results = [check_equal("all 120 ways of dealing", found, truth, mistakes)]
    same = call("dealt", dealt, correct.clone(), torch.full((5,), 3))
    results.append(check_equal("one depth for all: nothing changes", same, correct[:, 2].float()))
    return passed("dealt depths", *results)
