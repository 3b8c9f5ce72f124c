"""Choosing the strength of an intervention on dev questions, by the gates and the objective of PISCES.

Any family of interventions with a few knobs can be searched: each knob's values are listed from weak to strong. As
published (`find_hps` of the authors' code), cells are pruned monotonically: a cell that spoils general ability or
fluency rules out every stronger one, a cell that leaves the target alone every weaker one. The authors visit cells in
random order; here the next cell is the one that can rule out most either way. The objective is the harmonic mean of
efficacy, specificity and coherence. The authors' gates are absolute numbers of their models; ours are shares of what
the original model does, corrected for chance: accuracies with the values that EMBER uses, and for fluency the share of
the full grade that the authors ask for (1.7 of 2).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from tqdm.auto import tqdm

from ..core import ConceptLabError, NotPossible, atomic_path
from ..data import Concept, Question, held_out_passages
from ..edits import Intervention
from ..models import LanguageModel
from .comparison import Comparison, compare, harmonic_mean
from .fluency import fluency
from .forms import has_form, score_form
from .questions import Asked, QuestionScores, ask
from .scorecard import SETS, Scorecard, concept_questions, score_sets


def closest(
    lost: Callable[[Intervention], float], interventions: Iterable[Intervention], wanted: float, rising: bool = False
) -> tuple[Intervention, int]:
    """The intervention whose `lost(intervention)` is nearest to `wanted`, the first of equals; and its place.

    `rising`: they come from weak to strong, and none is tried after the first that costs `wanted`. Raises
    NotPossible where there is none.
    """
    best: tuple[float, Intervention, int] | None = None
    for place, intervention in enumerate(interventions):
        cost = lost(intervention)
        if best is None or abs(cost - wanted) < best[0]:
            best = abs(cost - wanted), intervention, place
        if rising and cost >= wanted:
            break
    if best is None:
        raise NotPossible("There is no edit to choose from; give at least one strength.")
    return best[1:]


@dataclass(frozen=True)
class SearchConfig:
    """How the cells of a grid are judged."""

    n_questions: int = 16  # dev questions per set, the last ones that the original model answers rightly: features are
    # found on the first ones (of a set smaller than n_asked and those together, some serve both)
    n_asked: int = 48  # dev questions per set that the original is asked first, to know which it knows
    n_clues: int = 0  # so many of those on the target are asked by their clue too, where it knows them so: a strength
    # that does for direct questions alone is too weak for new ones
    n_texts: int = 4  # held-out passages; 0: coherence is not measured
    target_gate: float = 0.6  # share of the target accuracy left, at most (EMBER's gate)
    general_gate: float = 0.7  # share of the general accuracy left, at least (EMBER's gate)
    coherence_gate: float = 0.85  # coherence, at least (a fluency of 1.7 of 2 in the authors' code)
    prune_weak: bool = True  # discard cells weaker than one that misses the target gate, as published


@dataclass(frozen=True)
class Trial:
    """One setting and what it did on dev: shares left (1: as before, 0: chance) and changes in nats per token."""

    setting: dict[str, float]
    target: float
    neighbour: float
    general: float
    coherence: float
    objective: float  # harmonic mean of efficacy, specificity, coherence
    selectivity: float  # nats lost on the target minus three times the nats lost elsewhere: tells equal cells apart
    passed: bool  # all gates

    @property
    def rank(self) -> tuple[bool, float, float]:
        return self.passed, self.objective, self.selectivity


@dataclass(frozen=True)
class Search:
    """The cells that were computed, in the order of the grid; `skipped` settings were ruled out by others."""

    cells: tuple[Trial, ...]
    skipped: tuple[dict[str, float], ...]

    @property
    def best(self) -> Trial:
        """The best cell; one that passes the gates comes before any that does not."""
        return max(self.cells, key=lambda cell: cell.rank)


def search_settings(
    lm: LanguageModel,
    concept: Concept,
    axes: Mapping[str, Sequence[float | int]],
    make: Callable[..., Intervention],
    cfg: SearchConfig = SearchConfig(),
    path: Path | None = None,
    progress: bool = False,
    judge: Judge | None = None,
) -> Search:
    """Try `make(**setting)` for every setting of the grid, on dev questions only.

    `axes`: knob -> values from weak to strong (for PISCES `tau` falls and `mu` rises). `path`: a JSON file in which
    finished cells are kept, so that an interrupted search goes on. `judge`: one that several searches for the same
    concept share (else one is made). Raises ConceptLabError for an empty grid, or a file of another search.
    """
    cells = list(itertools.product(*(range(len(values)) for values in axes.values())))
    if not cells:
        raise ConceptLabError("The grid is empty; give at least one value for every knob.")
    key = {
        "weights": lm.fingerprint(),
        "concept": concept.name,
        "axes": {k: list(v) for k, v in axes.items()},
        **asdict(cfg),
    }
    found = _read(path, key)
    with tqdm(total=len(cells), initial=len(found), unit="cell", disable=not progress) as bar:
        while (cell := _next(cells, found, cfg)) is not None:
            judge = judge or Judge(lm, concept, cfg)
            setting = _setting(axes, cell)
            found[cell] = judge(make(**setting), setting)
            _write(path, key, found)
            bar.update()
    skipped = tuple(_setting(axes, cell) for cell in cells if cell not in found)
    return Search(tuple(found[cell] for cell in cells if cell in found), skipped)


def _setting(axes: Mapping[str, Sequence[float | int]], cell: tuple[int, ...]) -> dict[str, float]:
    return {knob: float(values[i]) for (knob, values), i in zip(axes.items(), cell, strict=True)}


class Judge:
    """Scores an edit against the original model on the dev questions that the original answers rightly.

    `general`: the general questions as the original answers them, where several concepts share them.
    """

    def __init__(self, lm: LanguageModel, concept: Concept, cfg: SearchConfig, general: Asked | None = None):
        self.lm, self.cfg, self.concept = lm, cfg, concept.name
        asked = {"general": general} if general else {}
        asked |= {
            name: ask(lm, questions[::-1], cfg.n_asked)
            for name, questions in concept_questions(concept, "dev").items()
            if questions and name not in asked
        }
        if "target" not in asked:
            raise ConceptLabError(f"{concept.name} has no dev questions to choose a strength on; add some to its file.")
        known = {name: asked[name].known(cfg.n_questions) for name in SETS if name in asked}
        self.questions = {name: found.questions for name, found in known.items()}
        scores = {name: found.scores for name, found in known.items()}
        self.clues: tuple[Question, ...] = ()
        facts = [q for q in self.questions["target"] if has_form(q, "clue")]
        if cfg.n_clues and facts:
            right = score_form(lm, facts, "clue").correct.nonzero()[: cfg.n_clues, 0]
            self.clues = tuple(facts[i] for i in right.tolist())
        text = fluency(lm, held_out_passages("dev", cfg.n_texts)) if cfg.n_texts else None
        self.base = self._with_clues(Scorecard(concept.name, "dev", scores, text))

    def _with_clues(self, card: Scorecard) -> Scorecard:
        """The facts asked by a clue count as further questions on the target."""
        if not self.clues:
            return card
        parts = card.scores["target"], score_form(self.lm, self.clues, "clue")
        both = QuestionScores(torch.cat([p.logprobs for p in parts]), torch.cat([p.answers for p in parts]))
        return replace(card, scores=card.scores | {"target": both})

    def __call__(self, edit: Intervention, setting: dict[str, float]) -> Trial:
        with edit.applied(self.lm):
            after = score_sets(self.lm, self.concept, "dev", self.questions, self.cfg.n_texts)
            after = self._with_clues(after)
        return judged(compare(self.base, after, n_resamples=0), setting, self.cfg)


def judged(found: Comparison, setting: dict[str, float], cfg: SearchConfig) -> Trial:
    """Gates and objective of one comparison; a set that was not asked, or cannot be measured, counts as kept.

    Raises NotPossible where the target itself cannot be measured: then no strength can be chosen.
    """
    left = {name: change.relative.value for name, change in found.changes.items()}
    nats = {name: change.gold.value for name, change in found.changes.items()}
    if math.isnan(left.get("target", 1.0)):
        raise NotPossible("The original knows too little of the target's dev questions to choose a strength on them.")
    target, neighbour, general = (_or_kept(left.get(name, 1.0)) for name in ("target", "neighbour", "general"))
    coherence, objective = _or_kept(found.coherence.value), found.overall.value
    if math.isnan(objective):
        objective = float(harmonic_mean([1 - target, harmonic_mean([neighbour, general]), coherence]))
    spared = min([0.0, *(value for name, value in nats.items() if name != "target")])
    return Trial(
        setting, target, neighbour, general, coherence, objective, -nats.get("target", 0.0) + 3 * spared,
        target <= cfg.target_gate and general >= cfg.general_gate and coherence >= cfg.coherence_gate,
    )  # fmt: skip


def _or_kept(value: float) -> float:
    return 1.0 if math.isnan(value) else value


def _next(
    cells: Sequence[tuple[int, ...]], found: Mapping[tuple[int, ...], Trial], cfg: SearchConfig
) -> tuple[int, ...] | None:
    """The open cell that has most open cells on its poorer side, weaker or stronger; None when none is open."""
    unknown = [c for c in cells if c not in found and not _ruled_out(c, found, cfg)]
    if not unknown:
        return None
    return max(unknown, key=lambda c: min(sum(_weaker(o, c) for o in unknown), sum(_weaker(c, o) for o in unknown)))


def _weaker(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether no knob of `a` is turned further than that of `b`."""
    return all(x <= y for x, y in zip(a, b, strict=True))


def _ruled_out(cell: tuple[int, ...], found: Mapping[tuple[int, ...], Trial], cfg: SearchConfig) -> bool:
    """Whether a computed cell shows that this one is too strong, or too weak."""
    for other, result in found.items():
        fails = result.general < cfg.general_gate or result.coherence < cfg.coherence_gate
        if fails and _weaker(other, cell):
            return True
        if cfg.prune_weak and not fails and result.target > cfg.target_gate and _weaker(cell, other):
            return True
    return False


def _read(path: Path | None, key: dict) -> dict[tuple[int, ...], Trial]:
    if path is None or not path.exists():
        return {}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        same = kept["search"] == json.loads(json.dumps(key))
        cells = {tuple(map(int, name.split(","))): Trial(**cell) for name, cell in kept["cells"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConceptLabError(
            f"{path.name} is not a file of finished cells ({type(error).__name__}); remove it."
        ) from None
    if not same:
        raise ConceptLabError(f"{path.name} belongs to a search with other settings; remove it or give another path.")
    return cells


def _write(path: Path | None, key: dict, found: Mapping[tuple[int, ...], Trial]) -> None:
    if path is not None:
        cells = {",".join(map(str, cell)): asdict(result) for cell, result in found.items()}
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps({"search": key, "cells": cells}, indent=1) + "\n", encoding="utf-8")
