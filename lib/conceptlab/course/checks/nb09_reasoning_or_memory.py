"""Checks of notebook 09. Oracles: loops over pairs, means by hand, exact geometry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..record import Points
from .feedback import call, check_equal, check_true, passed, random_tensor


def check_direction(direction: Callable) -> Points:
    """`direction(x, positive)` `[layers, n, d]` to `[layers, d]`: mean of the positive minus mean of the rest."""
    x = random_tensor(3, 10, 4, seed=1)
    positive = torch.tensor([True] * 3 + [False] * 7)
    truth = torch.zeros(3, 4)
    for i in range(10):
        truth += x[:, i] / 3 if positive[i] else -x[:, i] / 7
    mistakes = {
        "turned round: the positive kind comes first.": -truth,
        "each kind is divided by its own number of items, not by all.": (x[:, positive].sum(1) - x[:, ~positive].sum(1))
        / 10,
        "subtract the mean of the others, not that of all items.": x[:, positive].mean(1) - x.mean(1),
        "the length is part of the answer; do not normalise.": truth / truth.norm(dim=1, keepdim=True),
    }
    results = [
        check_equal("three layers, kinds of unequal size", call("direction", direction, x, positive), truth, mistakes)
    ]
    same = torch.ones(2, 6, 3)
    found = call("direction", direction, same, torch.tensor([True, False] * 3))
    results.append(check_equal("equal states: no direction", found, torch.zeros(2, 3)))
    return passed("difference of means", *results)


def check_auroc(area: Callable) -> Points:
    """`area(scores, positive)`: chance that a positive item scores higher, ties count half. Oracle: all pairs."""
    results = []
    cases = {
        "12 items": (-random_tensor(12, seed=2), torch.tensor([True, False, False] * 4)),
        "ties": (torch.tensor([1.0, 1, 2, 0, 1, 2]), torch.tensor([True, True, True, False, False, False])),
        "all the wrong way round": (torch.arange(6.0), torch.tensor([True] * 3 + [False] * 3)),
    }
    for name, (scores, positive) in cases.items():
        wins = [float(a > b) + 0.5 * float(a == b) for a in scores[positive] for b in scores[~positive]]
        truth = sum(wins) / len(wins)
        strict = sum(w == 1 for w in wins) / len(wins)
        mistakes = {
            "a tie counts half.": strict,
            "no choice of sign: below .5 is an answer, too.": max(truth, 1 - truth),
            "that is the chance of scoring lower.": 1 - truth,
            "compare positive with other items, not with all.": _against_all(scores, positive),
        }
        results.append(check_equal(name, call("area", area, scores, positive), truth, mistakes))
    return passed("AUROC of a direction", *results)


def _against_all(scores: Tensor, positive: Tensor) -> float:
    pairs = [float(a > b) + 0.5 * float(a == b) for a in scores[positive] for b in scores]
    return sum(pairs) / len(pairs)


def check_shuffled(shuffled: Callable) -> Points:
    """`shuffled(positive, generator)`: the labels dealt to other items, as many of each, from the generator alone."""
    positive = torch.tensor([True] * 6 + [False] * 14)
    made = [call("shuffled", shuffled, positive.clone(), torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    if not all(isinstance(y, Tensor) and y.shape == positive.shape for y in made):
        return passed("shuffled labels", check_true("shape", False, "return one label for every item, as a tensor."))
    first, again, other = (torch.as_tensor(y) for y in made)
    torch.manual_seed(0)
    a = torch.as_tensor(call("shuffled", shuffled, positive.clone(), torch.Generator().manual_seed(3)))
    torch.manual_seed(1)
    b = torch.as_tensor(call("shuffled", shuffled, positive.clone(), torch.Generator().manual_seed(3)))
    results = [
        check_true("as many of each kind", int(first.sum()) == 6, "deal the labels that there are; do not toss coins."),
        check_true("they move", not torch.equal(first, positive), "the labels are where they were."),
        check_true("the same generator, the same labels", torch.equal(first, again), "use the generator given."),
        check_true("another seed, other labels", not torch.equal(first, other), "every seed deals the same labels."),
        check_true("torch's global state is left out", torch.equal(a, b), "pass generator=generator to randperm."),
    ]
    return passed("shuffled labels", *results)


def check_hold_out(hold_out: Callable) -> Points:
    """`hold_out(templates)`: per template a pair of masks (train, test). Oracle: membership item by item."""
    names = ["city", "coins", "city", "month", "coins", "month", "city"]
    found: Any = call("hold_out", hold_out, list(names))
    results = []
    try:
        pairs = [(torch.as_tensor(a), torch.as_tensor(b)) for a, b in found]
    except (TypeError, ValueError):
        return passed(
            "held-out templates", check_true("form", False, "return a list of pairs (train mask, test mask).")
        )
    results.append(check_equal("one pair per template", len(pairs), 3))
    ok = all(a.shape == b.shape == (7,) and a.dtype == b.dtype == torch.bool for a, b in pairs)
    results.append(check_true("masks over all items", ok, "each mask has one true or false per item."))
    if ok and pairs:
        tested = [{names[i] for i in b.nonzero()[:, 0].tolist()} for _, b in pairs]
        trained = [{names[i] for i in a.nonzero()[:, 0].tolist()} for a, _ in pairs]
        apart = all(not x & y for x, y in zip(tested, trained, strict=True))
        once = torch.stack([b for _, b in pairs]).sum(0).tolist() == [1] * 7
        all_used = all(bool((a | b).all()) for a, b in pairs)
        results.append(check_true("a tested template is not trained on", apart, "a template stands on both sides."))
        results.append(check_true("every item is tested once", once, "some items are tested twice, or never."))
        results.append(check_true("everything else trains", all_used, "items are left out of both masks."))
    return passed("held-out templates", *results)


def check_share(share: Callable) -> Points:
    """`share(matched, naive)`: of the AUROC over .5, what is left. Works on numbers and on tensors of draws."""
    draws = torch.tensor([0.6, 0.5, 0.45])
    mistakes = {
        "count from .5: an AUROC of .5 is nothing, not half.": draws / 0.9,
        "that is what is lost; what is left?": 1 - (draws - 0.5) / 0.4,
        "a negative share is an answer, too; do not cut it off.": ((draws - 0.5) / 0.4).clamp_min(0),
    }
    found = call("share", share, draws, torch.full((3,), 0.9))
    results = [check_equal("three draws against .9", found, torch.tensor([0.25, 0.0, -0.125]), mistakes)]
    results.append(check_equal("all of it", call("share", share, torch.tensor(0.8), torch.tensor(0.8)), 1.0))
    return passed("surviving share", *results)


def check_equal_energy(move: Callable) -> Points:
    """`move(h, u, w)`: `h - (h . u) w`, as far as projecting `u` out moves each state, but along `w`."""
    h, frame = random_tensor(5, 3, 8, seed=4), torch.linalg.qr(random_tensor(8, 2, seed=5))[0]
    u, w = frame[:, 0], frame[:, 1]
    along = (h @ u)[..., None]
    mistakes = {
        "that projects u out; the control moves along w.": h - along * u,
        "the coefficient is that of u, so that the energy is equal.": h - (h @ w)[..., None] * w,
        "projected out means subtracted.": h + along * w,
        "one coefficient for every position, not one for all.": h - (h @ u).mean() * w,
    }
    found = call("move", move, h.clone(), u, w)
    results = [check_equal("15 states", found, h - along * w, mistakes)]
    results.append(check_equal("w = u projects out", call("move", move, h.clone(), u, u), h - along * u))
    if isinstance(found, Tensor) and found.shape == h.shape:
        gone = torch.allclose((found - h).norm(dim=-1), along[..., 0].abs(), atol=1e-4)
        results.append(check_true("each state moves by |h . u|", gone, "the distance differs from that of ablation."))
    return passed("control of equal energy", *results)
