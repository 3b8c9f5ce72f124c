"""Strength curves, and methods compared where they take the same from the target.

An edit that takes twice as much from its target also takes more from everything else, so two methods at their own
strengths cannot be compared. Here every edit is scaled, `s * edit`, and per question the loss of log-probability is
kept at each scale for the target, its neighbour, the unseen near domains and general questions, and what an attack
leaves of it. `at_loss` interpolates between two scales to the point where the target has lost so many nats; `matched`
compares methods there, paired: over the questions of one or two concepts, or over three concepts and more.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ..attacks import Setting, per_question, run_attack
from ..core import Cell, ConceptLabError, Interval, NotPossible, bootstrap, interval_of, mean_interval, widened
from ..edits import Intervention, WeightEdit
from ..evaluation import Asked, score_questions
from ..models import LanguageModel

CURVE = "curve"  # the attack of the cells that hold a strength curve; its budget is the scale
TARGET, UNSEEN = "target", "unseen"
N_DRAWS = 2_000  # of the questions, for intervals at matched loss
REACHED = 0.9  # of the draws that must reach the loss, or the number has no interval


@dataclass(frozen=True)
class CurveConfig:
    """At which strengths, on how many questions."""

    scales: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 2.0)  # of the edit that was chosen on dev
    n_questions: int = 16  # known test questions of each set
    attacks: tuple[str, ...] = ()  # met at every strength (relearning triples the cost of a method)


@dataclass(frozen=True)
class Point:
    """One strength: per question what was lost, in nats; the lists run over questions."""

    scale: float
    lost: dict[str, list[float]]  # set -> gold log-probability per token lost, against the original
    # attack -> margins lost by the attacked questions before it and under its greatest strength (the same questions)
    attacked: dict[str, list[list[float]]] = field(default_factory=dict)
    # set -> margin of the right answer over the best wrong one lost; log-probability falls with every damage to the
    # text, a margin only where the right answer loses to another
    margins: dict[str, list[float]] = field(default_factory=dict)


Curve = Sequence[Point]


# ---- measuring --------------------------------------------------------------------------------------------
def scaled(intervention: Intervention, factor: float) -> Intervention:
    """The same intervention, weaker or stronger. Raises NotPossible for one that knows no strength in between."""
    if isinstance(intervention, WeightEdit):
        return intervention * factor
    weaker = getattr(intervention, "scaled", None)
    if weaker is None:
        raise NotPossible(f"{type(intervention).__name__} has no strength to scale; give it a method `scaled(factor)`.")
    return weaker(factor)


def known_sets(asked: Mapping[str, Asked], n: int) -> dict[str, Asked]:
    """The first `n` known questions of each set, all unseen near domains as one set."""
    found: dict[str, Asked] = {}
    for name, one in asked.items():
        known, key = one.known(n), UNSEEN if name.startswith(f"{UNSEEN}_") else name
        found[key] = known if key not in found else _joined(found[key], known)
    return found


def _joined(a: Asked, b: Asked) -> Asked:
    scores = type(a.scores)(*(torch.cat([getattr(x.scores, k) for x in (a, b)]) for k in ("logprobs", "answers")))
    return Asked(a.questions + b.questions, scores)


@torch.no_grad()
def curve_point(
    lm: LanguageModel,
    intervention: Intervention,
    scale: float,
    asked: Mapping[str, Asked],
    setting: Setting | None = None,
    attacks: Sequence[str] = (),
) -> Point:
    """What `scale * intervention` takes from each set of known questions, and what each attack leaves of it."""
    edit, attacked = scaled(intervention, scale), {}
    with edit.applied(lm):
        now = {name: score_questions(lm, one.questions) for name, one in asked.items()}
        erased = setting.score(lm) if setting is not None and attacks else None
    if setting is not None and erased is not None:
        original = setting.score(lm)
        for name in attacks:
            try:
                under = run_attack(name, lm, edit, setting).last
            except NotPossible:
                continue
            pair = erased.margin, per_question(under)
            attacked[name] = [_rounded(original.margin - margin) for margin in pair]
    lost = {name: _rounded(one.scores.gold - now[name].gold) for name, one in asked.items()}
    margins = {name: _rounded(one.scores.margin - now[name].margin) for name, one in asked.items()}
    return Point(scale, lost, attacked, margins)


def point_metrics(point: Point) -> dict[str, Interval]:
    """The rows of the table: nats lost per set, and per attack before and under it; intervals over questions."""
    found = {f"lost_{name}": bootstrap(x, over="questions") for name, x in point.lost.items()}
    found |= {f"margin_lost_{name}": bootstrap(x, over="questions") for name, x in point.margins.items()}
    for name, pair in point.attacked.items():
        for when, x in zip(("before", "under"), pair, strict=True):
            found[f"margin_lost_{when}_{name}"] = bootstrap(x, over="questions")
    return {metric: x for metric, x in found.items() if not math.isnan(x.low)}  # one question has no interval


def _rounded(values: Tensor) -> list[float]:
    return [round(float(x), 4) for x in values]


# ---- matching ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class AtLoss:
    """One method where its target has lost `loss` nats: per question, between the two nearest strengths."""

    loss: float  # nats per token of the right answers on the target
    scale: float
    lost: dict[str, Float[Tensor, " n"]]  # nats per question of each set
    recovered: dict[str, Float[Tensor, " m"]]  # attack -> margin that came back, in nats per question
    margins: dict[str, Float[Tensor, " n"]] = field(default_factory=dict)  # margin lost by each set, where it was kept


def _columns(curve: Curve) -> dict[str, tuple[str, Float[Tensor, "scales n"]]]:
    """metric -> whose questions they are, and its values at scale 0 and at every scale; what every point has kept."""
    points = sorted(curve, key=lambda p: p.scale)
    rows: dict[str, tuple[str, list[list[float]]]] = {}
    for kind, kept in (("lost", [p.lost for p in points]), ("margin_lost", [p.margins for p in points])):
        for name in [name for name in kept[0] if all(name in one for one in kept)]:
            rows[f"{kind}_{name}"] = name, [one[name] for one in kept]
    for name in [name for name in points[0].attacked if all(name in p.attacked for p in points)]:
        pairs = [p.attacked[name] for p in points]
        rows[f"recovered_{name}"] = name, [[a - b for a, b in zip(*pair, strict=True)] for pair in pairs]
    return {
        metric: (name, torch.tensor([[0.0] * len(values[0]), *values], dtype=torch.float64))
        for metric, (name, values) in rows.items()
    }


def crossing(means: Float[Tensor, "draws scales"], loss: float) -> Float[Tensor, "draws scales"]:
    """For each row the weights of the scales, two of them not 0, at which the row's weighted mean is `loss`.

    The first pair of neighbouring scales between which the loss is passed; a row that never reaches it is nan.
    """
    low, high = means[:, :-1], means[:, 1:]
    passes = (low <= loss) & (high >= loss) & (high > low)
    first = passes.float().argmax(1, keepdim=True)
    share = (loss - low.gather(1, first)) / (high - low).gather(1, first)
    weights = torch.zeros_like(means).scatter_(1, first, 1 - share).scatter_(1, first + 1, share)
    weights[~passes.any(1)] = math.nan
    return weights


def at_loss(curve: Curve, loss: float) -> AtLoss:
    """The method where its target has lost `loss` nats. Raises NotPossible where no strength takes so much."""
    if not curve or not loss > 0:
        raise ConceptLabError(f"Methods are matched at a loss above 0, on a curve with points; got {loss} nats.")
    columns = _columns(curve)
    target = columns[f"lost_{TARGET}"][1].mean(1)
    weights = crossing(target[None], loss)[0]
    if bool(weights.isnan().any()):
        raise NotPossible(f"The strengths of this curve take {float(target.max()):.2f} nats; asked: {loss:g}.")
    scales = torch.tensor([0.0, *sorted(p.scale for p in curve)], dtype=torch.float64)
    found = {metric: weights @ values for metric, (_, values) in columns.items()}
    lost, margins, recovered = (
        {metric.removeprefix(start): x for metric, x in found.items() if metric.startswith(start)}
        for start in ("lost_", "margin_lost_", "recovered_")
    )
    return AtLoss(loss, float(weights @ scales), lost, recovered, margins)


def matched(
    curves: Mapping[str, Mapping[str, Curve]], loss: float, against: str = "pisces"
) -> dict[str, dict[str, Interval]]:
    """method -> metric -> number at equal direct loss; `curves[method][concept]`.

    `lost_<set>`, `margin_lost_<set>` and `recovered_<attack>`: nats, means over concepts; with `minus_<against>`
    behind: the difference from another method on the same questions, paired. Intervals over concepts (three or
    more), else over questions. They hold the match: each draw of the target's questions has a crossing of its own, for
    a difference one of either method. `scale`: where the crossing lies; `n_concepts`: in how many the loss is reached.
    """
    drawn = {m: {c: _drawn(curve, loss, c) for c, curve in found.items()} for m, found in curves.items()}
    reached = {m: {c: x for c, x in found.items() if x is not None} for m, found in drawn.items()}
    table: dict[str, dict[str, Interval]] = {}
    for method, found in reached.items():
        table[method] = {"n_concepts": Interval(float(len(found)), float(len(found)), float(len(found)), 1)}
        scales = [at_loss(curves[method][c], loss).scale for c in found]
        if scales:
            table[method]["scale"] = Interval(sum(scales) / len(scales), math.nan, math.nan, len(scales), "concepts")
        table[method] |= _numbers(list(found.values()), "")
        if method != against and against in reached:
            pairs = [(found[c], reached[against][c]) for c in found if c in reached[against]]
            differences = [{k: (a[k][0] - b[k][0], a[k][1]) for k in a if k in b and a[k][1] == b[k][1]}
                           for a, b in pairs]  # fmt: skip
            table[method] |= _numbers(differences, f"_minus_{against}")
    return table


Drawn = dict[str, tuple[Float[Tensor, " draws"], int]]  # metric -> its mean and draws of it, from how many questions


def _drawn(curve: Curve, loss: float, concept: str) -> Drawn | None:
    """Means at the loss: of the questions as they are, then of questions drawn anew; None where it is not reached.

    The same questions are drawn for every method. A draw whose target never reaches the loss is nan.
    """
    columns = _columns(curve)
    weights = crossing(_redrawn(*columns[f"lost_{TARGET}"], concept), loss)
    if bool(weights[0].isnan().any()):
        return None
    n = columns[f"lost_{TARGET}"][1].shape[1]
    return {
        metric: ((weights * _redrawn(name, values, concept)).sum(1), min(n, values.shape[1]))
        for metric, (name, values) in columns.items()
    }


def _redrawn(name: str, values: Float[Tensor, "scales n"], concept: str) -> Float[Tensor, "draws scales"]:
    """Means over the questions of a set, then over `N_DRAWS` draws of them, which hang on its name and size alone."""
    n = values.shape[1]
    generator = torch.Generator().manual_seed(zlib.crc32(f"{concept}/{name}/{n}".encode()))
    picks = torch.cat([torch.arange(n)[None], torch.randint(n, (N_DRAWS, n), generator=generator)])
    return values[:, picks].mean(-1).T


def _numbers(rows: Sequence[Drawn], ending: str) -> dict[str, Interval]:
    found = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        parts = [row[name] for row in rows if name in row]
        if len(parts) > 2:
            found[name + ending] = mean_interval([_interval(*part, few=False) for part in parts])
        else:  # questions of one or two concepts, each counting once
            n = sum(part[1] for part in parts)
            draws = torch.stack([draws * k / n for draws, k in parts]).sum(0)
            found[name + ending] = _interval(draws, n)
    return found


def _interval(draws: Float[Tensor, " draws"], n: int, few: bool = True) -> Interval:
    """Of the first value and of the draws behind it; none where many draws do not reach the loss.

    Widened for `few` questions, where no mean over concepts does that.
    """
    value, rest = float(draws[0]), draws[1:][draws[1:].isfinite()]
    if n < 2 or len(rest) < REACHED * N_DRAWS:
        return Interval(value, math.nan, math.nan, n, "questions")
    return interval_of(widened(rest, value, n) if few else rest, value, n, "questions")


def curves_of(
    record: Callable[[Cell], dict | None],
    concepts: Sequence[str],
    methods: Sequence[str],
    scales: Sequence[float] = CurveConfig.scales,
) -> dict[str, dict[str, Curve]]:
    """The curves of a lab table, for `matched`; methods and concepts without one are left out."""
    found: dict[str, dict[str, Curve]] = {}
    for method in methods:
        for concept in concepts:
            raw = [record(Cell(concept, method, CURVE, f"{scale:g}")) for scale in scales]
            points = [Point(**x) for x in raw if x and "lost" in x]
            if points:
                found.setdefault(method, {})[concept] = points
    return found
