"""How often the library's 95 % intervals hold the truth, by simulation with the library's own code.

`python tests/support/coverage_of_intervals.py` prints the table of docs/statistics.md (about two minutes). Where the
data are counts, coverage is summed over all outcomes and exact; elsewhere samples are drawn.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator

import torch

from conceptlab.core import (
    Interval,
    bootstrap,
    clustered,
    proportion,
    recovered_share,
    share_difference,
)
from conceptlab.evaluation import QuestionScores, Scorecard, compare

TRUTHS = (0.03, 0.1, 0.5, 0.9, 0.97)
SIZES = (13, 22, 40)  # questions
CONCEPTS = (5, 8, 16)
CHANCE = 0.25


def holds(found: Interval, truth: float) -> bool:
    return found.low <= truth <= found.high


def binomial(n: int, p: float) -> list[float]:
    return [math.comb(n, x) * p**x * (1 - p) ** (n - x) for x in range(n + 1)]


def answers(right: torch.Tensor) -> QuestionScores:
    """Four options each, the first is right."""
    table = torch.full((len(right), 4), -2.0)
    table[:, 0] = torch.where(right, -1.0, -3.0)
    return QuestionScores(table, torch.zeros(len(right), dtype=torch.long))


def card(**right: torch.Tensor) -> Scorecard:
    return Scorecard("golf", "test", {name: answers(x) for name, x in right.items()})


def first(x: int, n: int) -> torch.Tensor:
    return torch.arange(n) < x


# ---- counts: exact ----------------------------------------------------------------------------------------
def of_proportion(n: int) -> dict[float, float]:
    found = [proportion(x, n) for x in range(n + 1)]
    return {p: sum(w for w, i in zip(binomial(n, p), found, strict=True) if holds(i, p)) for p in TRUTHS}


def known_efficacy(n: int, draws: int = 1_000) -> dict[float, float]:
    """All `n` questions were answered before; efficacy `truth` leaves this share of right answers."""
    found = []
    for x in range(n + 1):
        sets = (card(target=first(k, n), general=first(9, 9)) for k in (n, x))
        found.append(compare(*sets, n_resamples=draws, known=True).efficacy)
    kept = {truth: CHANCE + (1 - truth) * (1 - CHANCE) for truth in TRUTHS}
    return {t: sum(w for w, i in zip(binomial(n, p), found, strict=True) if holds(i, t)) for t, p in kept.items()}


def known_specificity(n: int, draws: int = 400) -> dict[float, float]:
    """Two spared sets of `n` known questions each, both kept to the same true share."""
    base = card(neighbour=first(n, n), general=first(n, n))
    kept = {truth: binomial(n, CHANCE + truth * (1 - CHANCE)) for truth in TRUTHS}
    found = dict.fromkeys(TRUTHS, 0.0)
    for x in range(n + 1):
        for y in range(n + 1):
            weights = {truth: w[x] * w[y] for truth, w in kept.items()}
            if max(weights.values()) < 1e-5:
                continue
            after = card(neighbour=first(x, n), general=first(y, n))
            interval = compare(base, after, n_resamples=draws, known=True).specificity
            for truth, weight in weights.items():
                found[truth] += weight * holds(interval, truth)
    return found


# ---- samples ----------------------------------------------------------------------------------------------
def share(trials: Iterator[bool | None]) -> float:
    """Share of True among trials; None: not measurable, says nothing."""
    said = [x for x in trials if x is not None]
    return sum(said) / len(said)


def all_questions(n: int, truth: float, before: float, axis: str, trials: int, draws: int = 400) -> float:
    """Efficacy or specificity over all questions, of which the original answers the share `before`.

    Of each question answered before, and of each other one, the same edit leaves a share; where the original can do too
    little it says so, and such draws are left out.
    """
    g = torch.Generator().manual_seed(0)
    left = 1 - truth if axis == "efficacy" else truth
    stay = CHANCE + left * (1 - CHANCE)  # knowledge left, the others guessed
    gained = (CHANCE + left * (before - CHANCE) - before * stay) / (1 - before)
    names = ("target",) if axis == "efficacy" else ("neighbour", "general")

    def one() -> bool | None:
        base, after = {}, {}
        for name in names:
            base[name] = torch.rand(n, generator=g) < before
            after[name] = torch.rand(n, generator=g) < torch.where(base[name], stay, max(gained, 0.0))
        found = getattr(compare(card(**base), card(**after), n_resamples=draws), axis)
        return holds(found, truth) if found.measurable else None

    return share(one() for _ in range(trials))


def concepts_of(truth: float, m: int, spread: float, g: torch.Generator) -> torch.Tensor:
    """True shares of `m` concepts, Beta of mean `truth`; `spread`: the part of the variance that lies between them."""
    total = 1 / spread - 1
    a, b = (torch._standard_gamma(torch.full((m,), x * total).double(), generator=g) for x in (truth, 1 - truth))
    return a / (a + b)


def over_concepts(truth: float, m: int, n: int, trials: int, spread: float = 0.1) -> float:
    """Right or wrong answers of `m` new concepts of `n` questions; the claim is about their mean."""
    g = torch.Generator().manual_seed(1)

    def one() -> bool:
        shares = concepts_of(truth, m, spread, g)
        return holds(clustered([torch.rand(n, generator=g, dtype=torch.float64) < p for p in shares]), truth)

    return share(one() for _ in range(trials))


def real_means(n: int, trials: int, skewed: bool) -> float:
    g = torch.Generator().manual_seed(2)

    def one() -> bool:
        x = torch.randn(n, generator=g).double()
        return holds(bootstrap(x.exp() if skewed else x, 400, 0), math.exp(0.5) if skewed else 0.0)

    return share(one() for _ in range(trials))


def real_clusters(m: int, trials: int, between: float) -> float:
    """Numbers of nine questions each, standard deviation 1 within and `between` between the concepts."""
    g = torch.Generator().manual_seed(3)

    def one() -> bool:
        x = between * torch.randn(m, 1, generator=g) + torch.randn(m, 9, generator=g)
        return holds(clustered(list(x.double())), 0.0)

    return share(one() for _ in range(trials))


def margins(truth: float, m: int, n: int, g: torch.Generator, between: float) -> list[torch.Tensor]:
    """Original, erased and attacked margins: the gap is 3 nats, the share that comes back `truth` on the mean."""
    gap = 3 + between * torch.randn(m, 1, generator=g) + torch.randn(m, n, generator=g)
    back = truth + 0.3 * between * torch.randn(m, 1, generator=g)
    erased = torch.randn(m, n, generator=g)
    attacked = erased + back * gap + torch.randn(m, n, generator=g)
    return [x.double().flatten() for x in (erased + gap, erased, attacked)]


def of_shares(truth: float, m: int, n: int, trials: int, between: float) -> float:
    """Recovered share: over questions where there is one concept, else over concepts."""
    g = torch.Generator().manual_seed(4)
    groups = torch.arange(m).repeat_interleave(n)

    def one() -> bool | None:
        found = recovered_share(*margins(truth, m, n, g, between), groups)
        return holds(found, truth) if found.measurable else None

    return share(one() for _ in range(trials))


def of_differences(m: int, n: int, trials: int, between: float) -> float:
    g = torch.Generator().manual_seed(5)
    groups = torch.arange(m).repeat_interleave(n)

    def one() -> bool | None:
        (top, bottom, one), (_, low, two) = (margins(t, m, n, g, between) for t in (0.7, 0.4))
        shift = top - (low + 3)  # the same original model, another erasure
        found = share_difference((top, bottom, one), (low + 3 + shift, low + shift, two + shift), groups)
        return holds(found, 0.3) if found.measurable else None

    return share(one() for _ in range(trials))


def counted_shares(truth: float, n: int, trials: int) -> float:
    """What an attack finds (0 or 1) as a share of what it finds in the original, both above guessing."""
    g = torch.Generator().manual_seed(6)

    def one() -> bool | None:
        top = (torch.rand(n, generator=g) < 0.9).double()
        value = (torch.rand(n, generator=g) < CHANCE + truth * (0.9 - CHANCE)).double()
        found = recovered_share(top, torch.full((n,), CHANCE).double(), value)
        return holds(found, truth) if found.measurable else None

    return share(one() for _ in range(trials))


# ---- the table --------------------------------------------------------------------------------------------
def rows(trials: int) -> Iterator[tuple[str, str, list[float]]]:
    """(interval, data, coverage at each of TRUTHS), or one number where there is no such truth."""
    for n in SIZES:
        yield "proportion", f"n = {n}", list(of_proportion(n).values())
        yield "efficacy, known", f"n = {n}", list(known_efficacy(n).values())
        yield "specificity, known", f"n = {n}", list(known_specificity(n).values())
        for before in (0.7, 0.9):
            for axis in ("efficacy", "specificity"):
                found = [all_questions(n, t, before, axis, trials) for t in TRUTHS]
                yield f"{axis}, all", f"n = {n}, original {before:.0%}", found
        yield "counted share", f"n = {n}", [counted_shares(t, n, trials) for t in TRUTHS]
        yield "recovered share", f"n = {n}", [of_shares(t, 1, n, trials, 0.0) for t in TRUTHS]
        for skewed in (False, True):
            yield "mean of numbers", f"n = {n}, {'log-normal' if skewed else 'normal'}", [real_means(n, trials, skewed)]
    for m in CONCEPTS:
        for n in SIZES:
            yield "clustered answers", f"{m} concepts of {n}", [over_concepts(t, m, n, trials) for t in TRUTHS]
        for between in (0.0, 1.0):
            yield "clustered numbers", f"{m} concepts, spread {between:.0f}", [real_clusters(m, trials, between)]
        yield "recovered share", f"{m} concepts of 13", [of_shares(t, m, 13, trials, 1.0) for t in TRUTHS]
        yield "difference of shares", f"{m} concepts of 13", [of_differences(m, 13, trials, 1.0)]


def main(trials: int) -> None:
    print("| interval | data | " + " | ".join(f"truth {t}" for t in TRUTHS) + " |")
    print("|---|---|" + "---|" * len(TRUTHS))
    for name, data, found in rows(trials):
        cells = [f"{x:.3f}" for x in found] + [""] * (len(TRUTHS) - len(found))
        print(f"| {name} | {data} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000)
