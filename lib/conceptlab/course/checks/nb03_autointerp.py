"""Checks of notebook 03: a label by its score and its control, AUROC against brute-force pair counting, hard negatives
and wrongly marked tokens by their defining properties.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...autointerp import EvidenceJudge, Label, UnitExamples, detection, text_label
from ..record import Points
from .feedback import check_equal, check_true, passed
from .nb03_measuring import check_log_odds, check_push

__all__ = [
    "check_auroc",
    "check_hard_negatives",
    "check_label",
    "check_log_odds",
    "check_push",
    "check_wrong_place",
]


def check_label(text: object, examples: UnitExamples, foreign: Sequence[Label]) -> Points:
    """Score a label written by hand on held-out contexts of its unit, beside the labels of other units."""
    name, judge = "your label", EvidenceJudge()
    label = text_label(examples.unit, "by hand", text if isinstance(text, str) else "")
    if not check_true("words", bool(label.words), "write a few words as a string; articles and the like do not count."):
        return passed(name, False)
    score = detection(judge, label, examples)
    others = torch.tensor([detection(judge, other, examples, n_resamples=50).value for other in foreign])
    print(f"       detection AUROC {score}; labels of other features: mean {float(others.mean()):.2f}")
    parts = {"tokens": replace(label, words={}), "context": replace(label, tokens={})}
    token, context = (detection(judge, part, examples, n_resamples=50).value for part in parts.values())
    hint = "the words name none of the tokens it fires on: look at the darkest token of each line, not at the topic."
    if max(token, context) > 0.5:
        hint = f"as tokens the words reach {token:.2f}, as context {context:.2f}: name more of the marked tokens."
    first = check_true("above chance (lower end > 0.5)", score.low > 0.5, hint)
    second = check_true(
        "above the mean of foreign labels",
        score.value > float(others.mean()),
        "a label of another feature does as well on these contexts; be more specific.",
    )
    return passed(name, first, second)


def check_auroc(auroc: Callable[[Tensor, Tensor], float]) -> Points:
    """Check `auroc(firing, silent)`: the oracle compares every pair, on data without and with ties."""
    generator = torch.Generator().manual_seed(0)
    smooth = torch.randn(40, generator=generator) + 0.7, torch.randn(60, generator=generator)
    tied = tuple(torch.randint(0, 3, (n,), generator=generator).float() + up for n, up in ((30, 1), (50, 0)))
    results = [_case(auroc, "no ties", *smooth), _case(auroc, "many ties", *tied)]
    firing, silent = torch.tensor([3.0, 5.0]), torch.tensor([1.0, 2.0, 2.0])
    results.append(_case(auroc, "perfect separation", firing, silent))
    results.append(_case(auroc, "all scores equal", torch.ones(4), torch.ones(7)))
    return passed("AUROC", *results)


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
    other = {m: v for m, v in mistakes.items() if abs(v - truth) > 1e-6}
    return check_equal(name, answer, truth, other, tol=1e-6)


def check_hard_negatives(build: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Points:
    """Check `build(token_ids, on, off)`: the properties that define hard negatives, on planted corpora."""
    corpora = [_corpus(seed) for seed in range(1, 41)]
    try:
        draws = [torch.as_tensor(build(*(t.clone() for t in corpus))) for corpus in corpora]
    except Exception as error:  # a student's function may fail in any way
        check_true("runs", False, f"your function raised {type(error).__name__}: {error}")
        return passed("hard negatives", False)
    (token_ids, on, off), found = corpora[0], draws[0]
    shape_ok = found.shape == on.shape and not found.is_floating_point()
    shape = check_true("one place per firing", shape_ok, f"expected {len(on)} integers, one for each place of `on`.")
    if not shape:
        return passed("hard negatives", shape)
    if int(found.min()) < -1 or int(found.max()) >= len(token_ids):
        return passed("hard negatives", check_true("places exist", False, "places are -1 or indices of `token_ids`."))
    has, chosen = found >= 0, found[found >= 0]
    same = check_true(
        "the same token",
        bool(has.any()) and bool((token_ids[chosen] == token_ids[on[has]]).all()),
        "a negative must hold the same token id as its firing place (-1 where there is none).",
    )
    silent = check_true(
        "the unit is silent there",
        bool(has.any()) and not bool(torch.isin(chosen, on).any()),
        "a place of `on` was chosen; choose from `off`.",
    )
    once = check_true(
        "no place is used twice",
        bool(has.any()) and len(chosen.unique()) == len(chosen),
        "the same place serves several firings; take each place of `off` once.",
    )
    supply, demand = Counter(token_ids[off].tolist()), Counter(token_ids[on].tolist())
    possible = sum(min(n, supply[token]) for token, n in demand.items())
    full = check_true(
        "as many as there can be",
        int(has.sum()) == possible,
        f"{int(has.sum())} partners; {possible} are possible, and -1 is right for all others.",
    )
    mixed = check_true(
        "from all over the corpus",
        abs(_standing(corpora, draws) - 0.5) < 0.05,
        "the chosen places lie towards one end of the corpus: shuffle `off` first.",
    )
    return passed("hard negatives", shape, same, silent, once, full, mixed)


def _corpus(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, firing and silent places; tokens 0 to 2 fire half of the time, token 4 always."""
    generator = torch.Generator().manual_seed(seed)
    token_ids = torch.randint(0, 12, (400,), generator=generator)
    fires = (token_ids < 3) & (torch.rand(400, generator=generator) < 0.3)
    fires |= token_ids == 4  # it has no hard negative
    return token_ids, fires.nonzero().squeeze(1), (~fires).nonzero().squeeze(1)


def _standing(corpora: Sequence[tuple[Tensor, Tensor, Tensor]], draws: Sequence[Tensor]) -> float:
    """Mean standing of the chosen among all silent places of their token: 0 the first, 1 the last, 0.5 by chance."""
    standing = []
    for (token_ids, _, off), draw in zip(corpora, draws, strict=True):
        for place in draw[(draw >= 0) & (draw < len(token_ids))].tolist():
            own = off[token_ids[off] == token_ids[place]]
            if len(own) > 1:
                standing.append(float((own < place).sum() / (len(own) - 1)))
    return sum(standing) / len(standing) if standing else -1.0


def check_wrong_place(pick: Callable[[Sequence[float], int, torch.Generator], int]) -> Points:
    """Check `pick(activations, place, generator)`: silent places only, each of them equally often, -1 without any."""
    name, generator = "wrong places", torch.Generator().manual_seed(0)
    heat, place = [0.0, 0.7, 0.0, 3.0, 0.0, 0.0, 1.2], 3
    silent = [i for i, value in enumerate(heat) if value == 0]
    try:
        found = [pick(list(heat), place, generator) for _ in range(400)]
        found = [int(p) for p in found]
        full = int(pick([1.0, 2.0, 0.5], 1, generator))
        seeds = [torch.Generator().manual_seed(s) for s in (5, 5, 6)]
        draws = [[int(pick(list(heat), place, g)) for _ in range(20)] for g in seeds]
    except Exception as error:  # a student's function may fail in any way
        check_true("runs", False, f"your function raised {type(error).__name__}: {error}")
        return passed(name, False)
    another = check_true(
        "another token", place not in found, "the marked token itself came back; a wrong mark must be elsewhere."
    )
    inside = check_true(
        "silent there",
        all(0 <= p < len(heat) and heat[p] == 0 for p in found),
        "a place where the unit fires, more weakly, is not wrong; choose where the activation is 0.",
    )
    counts = Counter(found)
    each = check_true(
        "each equally often",
        all(abs(counts[p] - 100) < 40 for p in silent),
        f"400 draws from places {silent} gave {[counts[p] for p in silent]}; a judge may learn where the mark stands.",
    )
    none = check_true("none is silent", full == -1, f"[1.0, 2.0, 0.5] has no silent place: return -1, not {full}.")
    drawn = check_true(
        "the generator decides",
        draws[0] == draws[1] != draws[2],
        "the same seed must give the same places and another seed others: pass `generator=generator` to torch.randint.",
    )
    return passed(name, another, inside, each, none, drawn)
