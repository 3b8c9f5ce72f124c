"""Checks of notebook 08. Oracles: loops over neurons, exact sums over binomials, functions whose root is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..record import Points
from .feedback import call, check_equal, check_true, passed, random_tensor


def check_scores(scores: Callable) -> Points:
    """`scores(own, others)`: mean |m| over the concept's questions minus over the others'. Oracle: loops."""
    own, others = random_tensor(5, 3, 4, seed=1), random_tensor(7, 3, 4, seed=2)
    truth = torch.zeros(3, 4)
    for layer in range(3):
        for j in range(4):
            truth[layer, j] = sum(abs(float(x)) for x in own[:, layer, j]) / 5
            truth[layer, j] -= sum(abs(float(x)) for x in others[:, layer, j]) / 7
    mistakes = {
        "take the absolute value of every activation first: +2 and -2 do not cancel.": (
            own.mean(0).abs() - others.mean(0).abs()
        ),
        "the sign is kept; a vector writes as much with a negative coefficient.": own.mean(0) - others.mean(0),
        "that is the absolute value of the difference: it ranks the others' vectors too.": truth.abs(),
        "means, not sums: the two lists have different lengths.": own.abs().sum(0) - others.abs().sum(0),
        "the sign is turned: this ranks the others' vectors.": -truth,
        "the others are missing: these are simply active vectors.": own.abs().mean(0),
    }
    found = call("scores", scores, own.clone(), others.clone())
    results = [check_equal("5 and 7 questions, 3 layers, 4 neurons", found, truth, mistakes)]
    same = call("scores", scores, own.clone(), -own.clone())
    results.append(check_equal("the same questions with turned signs", same, torch.zeros(3, 4)))
    return passed("differential activity", *results)


def check_matched(matched: Callable) -> Points:
    """`matched(chosen, activity)`: per chosen neuron another one, as active as can be. Oracle: properties."""
    results = []
    activity = torch.rand(60, generator=torch.Generator().manual_seed(0)).square()
    cases = {"six of 60": activity.topk(6).indices, "a block in the middle": activity.argsort()[25:35]}
    for name, chosen in cases.items():
        given = chosen.clone()
        found = call("matched", matched, chosen, activity.clone())
        found = found.tolist() if isinstance(found, Tensor) else found
        if not isinstance(found, list) or len(found) != len(given):
            results.append(check_true(name, False, f"return {len(given)} indices, one per chosen neuron."))
            continue
        fresh = not set(found) & set(given.tolist())
        results.append(check_true(f"{name}: none of the chosen", fresh, "a chosen neuron is no control for itself."))
        once = len(set(found)) == len(found)
        results.append(check_true(f"{name}: none twice", once, "take each neuron at most once."))
        kept = torch.equal(chosen, given)
        results.append(check_true(f"{name}: nothing changed", kept, "do not write into what you were given."))
        rank = torch.empty(60, dtype=torch.long)
        rank[activity.argsort()] = torch.arange(60)
        far = int((rank[torch.tensor(found)] - rank[given]).abs().max())
        hint = f"one partner is {far} ranks away; look for the nearest free one by activity, not at random."
        results.append(check_true(f"{name}: as active", far <= 2 * len(given), hint))
    return passed("equally active neurons", *results)


def check_floor(floor: Callable) -> Points:
    """`floor(n, m, p)`: the mean score of a masking that does the same to all questions. Oracle: exact sums."""
    results = []
    for n, m, p in ((10, 10, 0.6), (4, 30, 0.5), (10, 150, 0.9)):
        truth, signed = 0.0, 0.0
        for i in range(n + 1):
            for j in range(m + 1):
                weight = math.comb(n, i) * p**i * (1 - p) ** (n - i) * math.comb(m, j) * p**j * (1 - p) ** (m - j)
                truth += weight * abs(j / m - i / n) / p
                signed += weight * (j / m - i / n) / p
        spread = math.sqrt(p * (1 - p) * (1 / n + 1 / m)) / p
        mistakes = {
            "without the absolute value noise cancels; the score takes it.": signed,
            "the score is divided by the general accuracy.": truth * p,
            "that is the standard deviation of the difference; the mean of its absolute value is smaller.": spread,
        }
        found = call("floor", floor, n, m, p)
        results.append(check_equal(f"n={n}, m={m}, p={p}", found, truth, mistakes, tol=0.05))
    return passed("noise floor", *results)


def check_overlap(overlaps: Callable) -> Points:
    """`overlaps(masks)`: share of set i that is in set j. Oracle: sets of Python."""
    masks = torch.rand(4, 3, 10, generator=torch.Generator().manual_seed(0)) < 0.4
    sets = [{tuple(x) for x in m.nonzero().tolist()} for m in masks]
    truth = torch.tensor([[len(a & b) / len(a) for b in sets] for a in sets])
    jaccard = torch.tensor([[len(a & b) / len(a | b) for b in sets] for a in sets])
    mistakes = {
        "that is the Jaccard index (shared over all); here: shared over the size of set i.": jaccard,
        "the share is of set i, the row.": truth.T,
        "numbers of shared vectors; divide by the size of set i.": torch.tensor(
            [[float(len(a & b)) for b in sets] for a in sets]
        ),
        "that divides by the number of all vectors.": torch.tensor([[len(a & b) / 30 for b in sets] for a in sets]),
    }
    found = call("overlaps", overlaps, [m.clone() for m in masks])
    results = [check_equal("four sets of different size", found, truth, mistakes)]
    one = call("overlaps", overlaps, [masks[0].clone()])
    results.append(check_equal("a set with itself", one, torch.ones(1, 1)))
    return passed("overlap", *results)


def check_without(without: Callable) -> Points:
    """`without(text, words)`: every listed word, whole and in any case, replaced by "it". Oracle: written out."""
    cases = {
        "whole words only": (("Golf is no golfing.", {"golf"}), "it is no golfing."),
        "any case, with punctuation": (("(GOLF), golf! Golf's", {"golf"}), "(it), it! it's"),
        "several words": (("A golfer plays golf.", {"golf", "golfer"}), "A it plays it."),
        "no word": (("Nothing here.", {"golf"}), "Nothing here."),
        "no list": (("Golf stays.", set()), "Golf stays."),
        "a word with a dot is no pattern": (("abc a.c", {"a.c", "x"}), None),
    }
    results = []
    for name, (given, truth) in cases.items():
        found = call("without", without, *given)
        if truth is None:
            ok, hint = isinstance(found, str) and found.startswith("abc"), "escape the words: re.escape."
        else:
            ok, hint = found == truth, f"got {found!r}, expected {truth!r}."
        results.append(check_true(name, ok, hint))
    return passed("text without words", *results)


def check_cut(cut: Callable) -> Points:
    """`cut(loss_at, target)`: the smallest share of a step at which a falling loss is the target. Oracle: roots."""
    cases = {
        "a straight line": (lambda t: 2 - t, 1.25, 0.75),
        "a curve": (lambda t: math.exp(-3 * t), 0.5, math.log(2) / 3),
        "met at once": (lambda t: 0.2, 0.5, 0.0),
        "met at the very end": (lambda t: 1 - t, 0.0, 1.0),
    }
    results = []
    for name, (loss_at, target, truth) in cases.items():
        mistakes = {"that is the share of the step that is too much; return what is kept.": 1 - truth}
        found = call("cut", cut, loss_at, target)
        ok = isinstance(found, float | int) and abs(found - truth) <= 0.02
        results.append(check_true(name, True, "") if ok else check_equal(name, found, truth, mistakes, tol=0.01))
    asked: list[float] = []

    def watched(t: float) -> float:
        asked.append(t)
        return 2 - 3 * t

    call("cut", cut, watched, 1.0)
    few = 0 < len(asked) <= 25 and all(0 <= t <= 1 for t in asked)
    results.append(check_true("at most 25 losses are asked for", few, f"{len(asked)} were; halve the interval."))
    return passed("cut at equal loss", *results)
