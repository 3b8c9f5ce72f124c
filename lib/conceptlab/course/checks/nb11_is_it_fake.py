"""Checks of notebook 11. Oracles: counting, geometry, the score test itself, enumeration of pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..cases import Case
from ..record import Points
from .feedback import call, check_equal, check_true, passed, random_tensor


def check_share_above(share_above: Callable) -> Points:
    """`share_above(scores, controls, level)`: share of scores above the controls' quantile. Oracle: counting."""
    scores, controls = torch.arange(20.0), torch.arange(101.0) / 10
    truth = sum(float(s) > 9.0 for s in scores) / 20  # the 90 % point of 0, .1, ..., 10 is 9
    mistakes: dict[str, Tensor | float] = {
        "that is the limit; which share of the scores lies above it?": 9.0,
        "the limit comes from the controls, not from the scores themselves.": (scores > scores.quantile(0.9))
        .float()
        .mean(),
        "above the limit, not below it.": 1 - truth,
        "a count is no share: divide by the number of scores.": truth * 20,
        "the mean of the controls is beaten by half of them; take their `level` quantile.": (scores > controls.mean())
        .float()
        .mean(),
    }
    results = [
        check_equal("20 scores, 101 controls", call("share", share_above, scores, controls, 0.9), truth, mistakes)
    ]
    same = call("share", share_above, controls, controls.clone(), 0.9)
    results.append(check_equal("controls against themselves: one in ten", same, 10 / 101))
    return passed("above the controls", *results)


def check_imposter(imposter: Callable) -> Points:
    """`imposter(left, right, others, generator)`: the same rows and sizes, other directions. Oracle: geometry."""
    left, right = random_tensor(16, 3, seed=1), torch.zeros(3, 40)
    right[:, :5] = random_tensor(3, 5, seed=2)
    others = torch.nn.functional.normalize(random_tensor(60, 16, seed=3), dim=1)
    others[0], others[1] = left[:, 0] / left[:, 0].norm(), -left[:, 1] / left[:, 1].norm()

    def made(seed: int) -> Any:
        g = torch.Generator().manual_seed(seed)
        return call("imposter", imposter, left.clone(), right.clone(), others.clone(), g)

    found = [made(seed) for seed in range(12)]
    if not all(isinstance(x, Tensor) and x.shape == left.shape and bool(x.isfinite().all()) for x in found):
        return passed("other directions in the same rows", check_true("shape", False, "return a tensor like `left`."))
    units = [x / x.norm(dim=0).clamp_min(1e-9) for x in found]
    near = [(others @ u).abs().amax(0) for u in units]
    own = left / left.norm(dim=0)
    apart = all(float((own.T @ u).abs().max()) < 0.9 for u in units)
    change = [(x @ right).norm() / (left @ right).norm() for x in found]
    ratio = torch.stack([x.norm(dim=0) / left.norm(dim=0) for x in found])
    alone = [len({int(i) for i in (others @ u).abs().argmax(0)}) == 3 for u in units]
    results = [
        check_true("directions of others", all(bool((n > 0.999).all()) for n in near), "columns are rows of `others`."),
        check_true("none of the edit's own", apart, "one is (nearly) the edit's; leave out |cosine| > .9."),
        check_true("three different ones", all(alone), "a direction was drawn twice."),
        check_true("the sizes keep their proportions", bool((ratio.std(1) < 1e-3).all()),
                   "a column is as long as the one it replaces, but for one factor for all."),
        check_true("a change of equal norm", all(abs(float(c) - 1) < 1e-3 for c in change),
                   "the whole change, left @ right, must have the norm of the edit: scale at the end."),
        check_true("the generator decides", torch.equal(found[0], made(0)) and not torch.equal(found[0], found[1]),
                   "draw with the generator given, and with nothing else."),
    ]  # fmt: skip
    return passed("other directions in the same rows", *results)


def check_wilson(wilson: Callable) -> Points:
    """`wilson(right, n)`: both ends. Oracle: at them the score test is just at its limit."""
    results = []
    for right, n in ((7, 12), (12, 12), (0, 9)):
        share = right / n
        ends = torch.tensor([_end(share, n, low) for low in (True, False)])
        wald = 1.959964 * math.sqrt(share * (1 - share) / n)
        mistakes = {
            "that is the textbook interval: no width at 0 and at 1.": torch.tensor([share - wald, share + wald]),
            "the factor 1 / (1 + z^2 / n) is missing.": ends * (1 + 1.959964**2 / n),
        }
        found: Any = call("wilson", wilson, right, n)
        pair = torch.tensor([float(x) for x in found]) if isinstance(found, tuple) and len(found) == 2 else found
        results.append(check_equal(f"{right} of {n}", pair, ends, mistakes, tol=1e-3))
    return passed("an interval with width", *results)


def _end(share: float, n: int, low: bool) -> float:
    """The farthest p whose score test does not reject `share`, by bisection."""
    inside, outside = share, 0.0 if low else 1.0
    for _ in range(60):
        p = (inside + outside) / 2
        kept = abs(share - p) <= 1.959964 * math.sqrt(p * (1 - p) / n)
        inside, outside = (p, outside) if kept else (inside, p)
    return inside


def check_share_back(share_back: Callable) -> Points:
    """`share_back(original, erased, after)`: of the loss; nan where no loss is sure. Oracle: known shares."""
    noise = 0.1 * random_tensor(16, seed=5)
    original = 3 + random_tensor(16, seed=4)
    erased = original - 2 + noise
    after = erased + 0.5
    gap = float((original - erased).mean())
    mistakes = {
        "divide by what was lost, original - erased, not by the original.": 0.5 / float(original.mean()),
        "what came back counts from the erased model.": float((original - after).mean()) / gap,
        "a mean of ratios breaks down where one question lost nothing: divide the means.": float(
            ((after - erased) / (original - erased)).mean()
        )
        + 1e-9,
    }
    found = call("share", share_back, original, erased, after)
    results = [check_equal("two nats lost, half a nat back", found, 0.5 / gap, mistakes)]
    lost = torch.tensor([0.6, -0.5] * 8)  # .05 in the mean, with a standard error of .14
    unsure: Any = call("share", share_back, original, original - lost, original)
    said = isinstance(unsure, float | int) or (isinstance(unsure, Tensor) and unsure.numel() == 1)
    ok = said and math.isnan(float(unsure))
    results.append(check_true("a loss that may be 0", ok, "there is nothing to have a share of; return nan."))
    none: Any = call("share", share_back, original, original.clone(), original + 0.5)
    said = isinstance(none, float | int) or (isinstance(none, Tensor) and none.numel() == 1)
    told = "an unedited model has lost 0, and 0 is not above two standard errors of 0; return nan."
    results.append(check_true("no loss at all", said and math.isnan(float(none)), told))
    worse = call("share", share_back, original, erased, erased - 0.5)
    results.append(check_equal("relearning that makes it worse", worse, -0.5 / gap))
    return passed("a share of a gap", *results)


def check_within(within: Callable) -> Points:
    """`within(scores, positive, surface)`: AUROC over pairs of equal surface. Oracle: all pairs, one by one."""
    scores = torch.tensor([3.0, 1, 2, 2, 5, 0, 4, 1])
    positive = torch.tensor([True, True, False, False, True, False, True, False])
    surface = torch.tensor([0, 0, 0, 0, 1, 1, 2, 1])
    wins, all_wins = [], []
    for i in range(8):
        for j in range(8):
            if positive[i] and not positive[j]:
                win = float(scores[i] > scores[j]) + 0.5 * float(scores[i] == scores[j])
                all_wins.append(win)
                if surface[i] == surface[j]:
                    wins.append(win)
    truth = sum(wins) / len(wins)
    by_group = (sum(wins[:4]) / 4 + sum(wins[4:]) / 2) / 2
    mistakes = {
        "those are all pairs; only pairs of equal surface count.": sum(all_wins) / len(all_wins),
        "every pair counts once: no mean over groups.": by_group,
        "that is the chance of scoring lower.": 1 - truth,
    }
    found = call("within", within, scores, positive, surface)
    results = [check_equal("eight items on three surfaces", found, truth, mistakes)]
    none: Any = call("within", within, scores[:4], torch.tensor([True, True, False, False]), torch.tensor([0, 1, 2, 3]))
    said = isinstance(none, float | int) or (isinstance(none, Tensor) and none.numel() == 1)
    ok = said and math.isnan(float(none))
    results.append(check_true("no pair of equal surface", ok, "then nothing was measured; return nan."))
    return passed("pairs of equal surface", *results)


def check_choice(choice: Any, known: Mapping[str, Case]) -> Points:
    """`choice`: case -> (control of its menu, whether the claim survives)."""
    results = []
    for name, case in known.items():
        try:
            control, survives = choice[name]
        except (TypeError, KeyError, ValueError):
            results += [check_true(f"{name}: an answer", False, "give a pair (control, True or False).")] * 2
            continue
        hint = "not on the menu." if control not in case.menu else "this one could not come out otherwise if the claim "
        hint += "" if control not in case.menu else "were false: it lacks the other thing, or has the claimed one."
        decides = check_true(f"{name}: a control that decides", control in case.deciding, hint)
        right = decides and survives is case.truth
        told = "run the control: what would it give if the claim were true, and what does it give?"
        results += [decides, check_true(f"{name}: the verdict", right, told)]
    return passed("choose and run the control", *results)
