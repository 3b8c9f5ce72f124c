"""Checks of notebook 03 that concern measuring: log-odds against exact fractions, and a push against its definition."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import log, sqrt
from typing import Any

import torch
from torch import Tensor

from ..record import Points
from .feedback import call, check_equal, check_true, passed, random_tensor


def check_log_odds(log_odds: Callable[[int, int, int, int], Any]) -> Points:
    """`log_odds(k, n, K, N)`: the smoothed difference of log-odds and its z-score, from exact fractions."""
    name = "log-odds of an item"
    results = []
    for case, (k, n, K, N) in {
        "14 of 20 against 30 of 2,000": (14, 20, 30, 2_000),
        "never in the background": (5, 20, 0, 2_000),
        "rarer where it fires": (1, 40, 500, 1_000),
    }.items():
        half = Fraction(1, 2)
        odds, back = (k + half) / (n - k + half), (K + half) / (N - K + half)
        delta, spread = log(odds / back), sqrt(1 / (k + half) + 1 / (K + half))
        found = call(case, log_odds, k, n, K, N)
        if not isinstance(found, tuple | list) or len(found) != 2:
            results.append(check_true(case, False, "return two numbers, the difference and its z-score."))
            continue
        plain = log((k + half) / (n + 1)) - log((K + half) / (N + 1))
        raw = log(Fraction(k, n - k)) - log(Fraction(K, N - K)) if K else 0.0
        wrong: dict[str, Tensor | float | int] = {
            "the sign is turned: firing contexts first, background second.": -delta,
            "odds, not shares: divide by how often the item is NOT there.": plain,
            "one half is added to each of the four counts.": raw,
        }
        z_wrong: dict[str, Tensor | float | int] = {
            "divide by the standard error, which is the ROOT of the sum.": delta / spread**2,
            "multiply nothing: z is the difference divided by its standard error.": delta * spread,
            "the standard error uses the smoothed counts as well.": delta / sqrt(1 / k + 1 / K) if K else 0.0,
        }
        first = check_equal(f"{case}: difference", found[0], delta, wrong, tol=1e-6)
        results.append(check_equal(f"{case}: z", found[1], delta / spread, z_wrong, tol=1e-6) and first)
    return passed(name, *results)


def check_push(push: Callable[..., Any]) -> Points:
    """`push(direction, mask, size)` gives a hook that moves a batch of states along a direction, but not everywhere."""
    name = "a push along a direction"
    x, direction = random_tensor(3, 6, 4, seed=1), random_tensor(4, seed=2)
    x[:, 0] *= 1_000  # the attention sink
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]]).bool()
    body = mask.clone()
    body[:, 0] = False
    given = x.clone()
    outputs = []
    for size in (1.0, 2.5):
        hook = call(name, push, direction.clone(), mask.clone(), size)
        found = call(name, hook, given) if callable(hook) else None
        if not isinstance(found, Tensor) or found.shape != x.shape:
            hint = "return a function that takes states [batch, pos, d_model] and returns as many."
            return passed(name, check_true("a hook", False, hint))
        outputs.append(found)
    moved = [y - x for y in outputs]
    length = x[body].norm(dim=1).mean()
    want = length * direction / direction.norm() * body[..., None]
    sink, unit = x[mask].norm(dim=1).mean(), direction / direction.norm()
    mistakes: dict[str, Tensor | float | int] = {
        "the first position belongs in no mean: it is a hundred times as long.": sink * unit * body[..., None],
        "the first position is pushed as well; it is an attention sink.": length * unit * mask[..., None],
        "padding is pushed as well; use the mask.": length * unit * torch.arange(6)[None, :, None].gt(0),
        "the direction is not divided by its length first.": length * direction * body[..., None],
        "every position is pushed by its own length; use one mean length.": x.norm(dim=-1)[..., None] * unit
        * body[..., None],
        "the push has length 1; it is to be as long as a typical state.": unit * body[..., None],
        "the direction points the wrong way.": -want,
    }  # fmt: skip
    return passed(
        name,
        check_equal("a push of one typical length", moved[0], want, mistakes),
        check_equal("two and a half lengths", moved[1], 2.5 * want, {"`size` has no effect.": want}),
        check_true("the states given are left alone", torch.equal(given, x), "do not write into the hook's argument."),
    )
