"""Strength curves, and methods compared where they take the same from the target.

An edit that takes twice as much from its target also takes more from everything else, so two methods at their own
strengths cannot be compared. Here every edit is scaled, `s * edit`, and per question the loss of log-probability is
kept at each scale for the target, its neighbour, the unseen near domains and general questions, and what an attack
leaves of it. `at_loss` interpolates between two scales to the point where the target has lost so many nats; `matched`
compares methods there: over the questions of one concept, or paired over several concepts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ..attacks import Setting, per_question, run_attack
from ..core import Cell, ConceptLabError, Interval, NotPossible, bootstrap, clustered, interval_of, widened
from ..edits import Intervention, WeightEdit
from ..evaluation import Asked, score_questions
from ..models import LanguageModel

CURVE = "curve"  # the attack of the cells that hold a strength curve; its budget is the scale
TARGET, UNSEEN = "target", "unseen"


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


def _columns(curve: Curve, name: str, kept: str = "lost") -> Float[Tensor, "scales n"]:
    """Losses (or, of `kept`, "margins") of a set at scale 0 and at every scale."""
    rows = torch.tensor([getattr(point, kept)[name] for point in sorted(curve, key=lambda p: p.scale)])
    return torch.cat([torch.zeros(1, rows.shape[1]), rows])


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
    target = _columns(curve, TARGET)
    weights = crossing(target.mean(1)[None], loss)[0]
    if bool(weights.isnan().any()):
        raise NotPossible(f"The strengths of this curve take {float(target.mean(1).max()):.2f} nats; asked: {loss:g}.")
    points = sorted(curve, key=lambda p: p.scale)
    scale = float(weights @ torch.tensor([0.0, *(p.scale for p in points)]))
    lost = {name: weights @ _columns(curve, name) for name in points[0].lost}
    recovered = {}
    for name in set.intersection(*(set(p.attacked) for p in points)):
        pairs = torch.tensor([p.attacked[name] for p in points])  # [scales, 2, n]
        gains = torch.cat([torch.zeros(1, pairs.shape[2]), pairs[:, 0] - pairs[:, 1]])
        recovered[name] = weights @ gains
    held = set.intersection(*(set(p.margins) for p in points))
    margins = {name: weights @ _columns(curve, name, "margins") for name in points[0].lost if name in held}
    return AtLoss(loss, scale, lost, recovered, margins)


def matched_loss(curve: Curve, name: str, loss: float, n_resamples: int = 2_000, seed: int = 0) -> Interval:
    """Nats that one set loses where the target has lost `loss`, with an interval over the questions of both.

    Each resample of the target's questions has a crossing of its own; resamples that never reach the loss are left out.
    """
    value = float(at_loss(curve, loss).lost[name].mean())
    target, other = _columns(curve, TARGET), _columns(curve, name)
    generator = torch.Generator().manual_seed(seed)
    picks = [torch.randint(x.shape[1], (n_resamples, x.shape[1]), generator=generator) for x in (target, other)]
    weights = crossing(target[:, picks[0]].mean(-1).T, loss)
    draws = (weights * other[:, picks[1]].mean(-1).T).sum(1)
    draws, n = draws[draws.isfinite()], min(target.shape[1], other.shape[1])
    return interval_of(widened(draws, value, n), value, n, "questions")


def matched(
    curves: Mapping[str, Mapping[str, Curve]], loss: float, against: str = "pisces"
) -> dict[str, dict[str, Interval]]:
    """method -> metric -> number at equal direct loss; `curves[method][concept]`.

    `lost_<set>`, `margin_lost_<set>` and `recovered_<attack>`: nats, means over concepts; with `minus_<against>`
    behind: the difference from another method on the same questions, paired. Intervals over concepts (three or
    more), else over questions.
    `n_concepts`: those in which the method reaches the loss.
    """
    reached = {method: _reached(per_concept, loss) for method, per_concept in curves.items()}
    table: dict[str, dict[str, Interval]] = {}
    for method, found in reached.items():
        table[method] = {"n_concepts": Interval(float(len(found)), float(len(found)), float(len(found)), 1)}
        table[method] |= _numbers([_flat(x) for x in found.values()], "")
        if method != against and against in reached:
            both = [c for c in found if c in reached[against]]
            pairs = [(_flat(found[c]), _flat(reached[against][c])) for c in both]
            differences = [{k: a[k] - b[k] for k in a if k in b and len(a[k]) == len(b[k])} for a, b in pairs]
            table[method] |= _numbers(differences, f"_minus_{against}")
    return table


def _reached(per_concept: Mapping[str, Curve], loss: float) -> dict[str, AtLoss]:
    found = {}
    for concept, curve in per_concept.items():
        try:
            found[concept] = at_loss(curve, loss)
        except NotPossible:
            continue
    return found


def _flat(at: AtLoss) -> dict[str, Tensor]:
    kinds = {"lost": at.lost, "margin_lost": at.margins, "recovered": at.recovered}
    return {f"{kind}_{name}": x for kind, found in kinds.items() for name, x in found.items()}


def _numbers(rows: Sequence[Mapping[str, Tensor]], ending: str) -> dict[str, Interval]:
    found = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        values = [row[name] for row in rows if name in row]
        found[name + ending] = clustered(values) if len(values) > 2 else bootstrap(torch.cat(values), over="questions")
    return found


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
