"""Checks of notebook 03: AUROC against brute-force pair counting, and hard negatives by their defining properties."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from .feedback import check_equal, check_true, passed


def check_auroc(auroc: Callable[[Tensor, Tensor], float]) -> None:
    """Check `auroc(firing, silent)`: the oracle compares every pair, on data without and with ties."""
    generator = torch.Generator().manual_seed(0)
    smooth = torch.randn(40, generator=generator) + 0.7, torch.randn(60, generator=generator)
    tied = tuple(torch.randint(0, 3, (n,), generator=generator).float() + up for n, up in ((30, 1), (50, 0)))
    results = [_case(auroc, "no ties", *smooth), _case(auroc, "many ties", *tied)]
    firing, silent = torch.tensor([3.0, 5.0]), torch.tensor([1.0, 2.0, 2.0])
    results.append(_case(auroc, "perfect separation", firing, silent))
    results.append(_case(auroc, "all scores equal", torch.ones(4), torch.ones(7)))
    passed("AUROC", *results)


def _case(auroc: Callable, name: str, firing: Tensor, silent: Tensor) -> bool:
    above = below = same = 0
    for a in firing.tolist():
        for b in silent.tolist():
            above, below, same = above + (a > b), below + (a < b), same + (a == b)
    pairs = len(firing) * len(silent)
    mistakes = {
        "ties count as lost; a tied pair is worth one half.": above / pairs,
        "ties count as won; a tied pair is worth one half.": (above + same) / pairs,
        "the two sides are swapped: firing contexts should score higher.": (below + same / 2) / pairs,
        "this is the number of pairs; divide by n_firing * n_silent.": above + same / 2,
    }
    try:
        answer = auroc(firing.clone(), silent.clone())
    except Exception as error:  # a student's function may fail in any way
        return check_true(name, False, f"your function raised {type(error).__name__}: {error}")
    truth = (above + same / 2) / pairs
    mistakes = {m: torch.tensor(float(v)) for m, v in mistakes.items() if abs(v - truth) > 1e-6}
    return check_equal(name, answer, truth, mistakes, tol=1e-6)


def check_hard_negatives(build: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Check `build(token_ids, on, off)`: the properties that define hard negatives, on planted tokens."""
    generator = torch.Generator().manual_seed(1)
    token_ids = torch.randint(0, 12, (400,), generator=generator)
    fires = (token_ids < 3) & (torch.rand(400, generator=generator) < 0.5)
    fires |= token_ids == 4  # token 4 always fires: it has no hard negative
    on, off = fires.nonzero().squeeze(1), (~fires).nonzero().squeeze(1)
    try:
        found = build(token_ids.clone(), on.clone(), off.clone())
        found = torch.as_tensor(found)
    except Exception as error:  # a student's function may fail in any way
        check_true("runs", False, f"your function raised {type(error).__name__}: {error}")
        return passed("hard negatives", False)
    shape_ok = found.shape == on.shape and not found.is_floating_point()
    shape = check_true("one place per firing", shape_ok, f"expected {len(on)} integers, one for each place of `on`.")
    if not shape:
        return passed("hard negatives", shape)
    if int(found.min()) < -1 or int(found.max()) >= len(token_ids):
        return passed("hard negatives", check_true("places exist", False, "places are -1 or indices of `token_ids`."))
    has = found >= 0
    chosen = found[has]
    missing = bool(has.any())
    same = check_true(
        "the same token",
        missing and bool((token_ids[chosen] == token_ids[on[has]]).all()),
        "a negative must hold the same token id as its firing place (-1 where there is none).",
    )
    silent = check_true(
        "the unit is silent there",
        missing and not bool(fires[chosen].any()),
        "a place of `on` was chosen; choose from `off`.",
    )
    once = check_true(
        "no place is used twice",
        missing and len(chosen.unique()) == len(chosen),
        "the same place serves several firings; take each place of `off` once.",
    )
    supply, demand = Counter(token_ids[off].tolist()), Counter(token_ids[on].tolist())
    possible = sum(min(n, supply[token]) for token, n in demand.items())
    full = check_true(
        "as many as there can be",
        int(has.sum()) == possible,
        f"{int(has.sum())} partners; {possible} are possible, and -1 is right for all others.",
    )
    passed("hard negatives", shape, same, silent, once, full)
