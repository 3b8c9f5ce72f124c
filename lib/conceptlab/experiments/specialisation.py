"""Do value vectors specialise? Masking with controls for every concept, then teaching through chosen vectors.

Cells: concept x method x share of the vectors masked. The vectors are ranked on dev questions and masked; what that
costs is measured on known test questions of the concept and of the others. Methods: `own` (the concept's vectors),
`equal` (equally active ones), `random`, `permuted` (ranked by questions with permuted concept labels), `masked` (ranked
by questions whose subject words were taken out) and `words` (by the concept's bare words). `clues` cells ask for facts
in wordings without any subject word, `teaching` cells teach invented facts through chosen vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core import (
    Cell,
    ConceptLabError,
    Interval,
    NotPossible,
    Store,
    atomic_path,
    bootstrap,
    cache_dir,
    correlation_interval,
    mean_interval,
    paired_bootstrap,
    proportion,
    say,
    table_path,
)
from ..data import Concept, Question, held_out_passages, list_concepts, load_concept, vital_articles, web_passages
from ..evaluation import QuestionScores, ask, gold_logprobs, score_questions
from ..models import LanguageModel
from ..specialisation import (
    Masking,
    TeachingConfig,
    corpus_frequency,
    differential,
    drift,
    equally_active,
    gap_interval,
    invented,
    most_specific,
    overlap,
    question_activity,
    random_vectors,
    score_interval,
    shuffled_groups,
    stems,
    subject_words,
    teach_through,
    without_words,
    wordless,
)

SHARES = (0.0003, 0.003, 0.03)  # of all value vectors
MAIN = 0.003  # where the claims are tested; the pilot's second share
STAGES = {  # what `methods` chooses from, in the order in which they are run
    "main": ("own", "equal", "random", "permuted"),
    "words": ("masked", "words"),
    "curves": ("own", "equal", "random"),
    "teach": (),
}
CLUED = ("own", "equal", "masked", "words")  # asked for without subject words, too
SCORED = ("own", "equal", "random")  # at MAIN with all options, for the score in accuracy and the margin
ARMS = ("own", "equal", "random", "complement", "all")
TAUGHT = ("golf", "japan", "astronomy", "baseball")  # concepts of the causal part


@dataclass(frozen=True)
class SpecialisationConfig:
    """Sizes of the experiment."""

    n_dev: int = 16  # dev questions per concept that rank its vectors
    n_asked: int = 24  # test questions per concept that are asked to find known ones
    n_own: int = 14  # known questions of the masked concept
    n_others: int = 10  # known questions of the other concepts
    shares: tuple[float, ...] = SHARES  # masked
    teach_share: float = 0.01  # of the vectors that are taught through
    teach_seeds: int = 1  # draws of the invented facts per concept
    n_people: int = 3  # invented people per concept, with three facts each


def specialisation(
    lm: LanguageModel,
    path: Path | None = None,
    concepts: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    config: SpecialisationConfig = SpecialisationConfig(),
    teaching: TeachingConfig | None = None,
    seed: int = 0,
    replace: bool = False,
) -> Path:
    """Masking cells of `concepts` (default: all), then teaching cells of those among them that `TAUGHT` names.

    `methods`: of `STAGES` (default: all): the claims at one share, subject words, further shares, teaching.
    The table is written to `path` (default: its place in data/results), see `Store` for interruptions and `replace`.
    More concepts and stages go on with the same table. Raises ConceptLabError for an unknown stage.
    """
    teaching = teaching or TeachingConfig()
    concepts = list_concepts() if concepts is None else list(concepts)
    if unknown := [stage for stage in methods or () if stage not in STAGES]:
        raise ConceptLabError(f"specialisation has no {unknown[0]!r}; its stages are {', '.join(STAGES)}.")
    settings: dict[str, Any] = {**vars(config), "shares": list(config.shares), "teaching": vars(teaching)}
    with Store(
        path or table_path("specialisation", lm.name), experiment="specialisation", model=lm.name,
        fingerprint=lm.fingerprint(), settings=settings, seed=seed, device=str(lm.device), replace=replace,
    ) as store:  # fmt: skip
        bench = Bench(lm, store, config)
        for stage in STAGES if methods is None else methods:
            for name in concepts:
                if stage != "teach":
                    _mask(bench, name, stage)
                elif name in TAUGHT:
                    _teach(bench, name, teaching)
        _pool(store, config)
        return store.finish()


@dataclass(frozen=True)
class Bench:
    """What all cells share: activity on the dev questions of all concepts, and the known test questions."""

    lm: LanguageModel
    store: Store
    config: SpecialisationConfig

    @cached_property
    def concepts(self) -> dict[str, Concept]:
        return {name: load_concept(name) for name in list_concepts()}

    def dev(self, name: str) -> tuple[Question, ...]:
        return self.concepts[name].dev[: self.config.n_dev]

    @cached_property
    def activity(self) -> dict[str, Float[Tensor, "n layers d_mlp"]]:
        return {name: self._activity(name) for name in self.concepts}

    def _activity(self, name: str) -> Float[Tensor, "n layers d_mlp"]:
        """Computed once for these weights and questions, then read from the cache (float16: 2 MB per concept)."""
        texts = stems(self.dev(name))
        key = hashlib.sha256("\0".join([self.lm.fingerprint(), *texts]).encode()).hexdigest()[:16]
        path = cache_dir() / "specialisation" / f"{name}-{key}.npy"
        if not path.exists():
            say(f"activity on dev questions of {name} ...")
            found = question_activity(self.lm, texts).half().numpy()
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, found, allow_pickle=False)
        return torch.from_numpy(np.load(path, allow_pickle=False)).float()

    def scores(self, name: str, own: Float[Tensor, "n layers d_mlp"]) -> Float[Tensor, "layers d_mlp"]:
        """Differential activity against the dev questions of the other concepts."""
        return differential(own, torch.cat([a for other, a in self.activity.items() if other != name]))

    def subject(self, name: str) -> frozenset[str]:
        others = [q for other in self.concepts if other != name for q in self.dev(other)]
        return subject_words(self.concepts[name], others)

    def known(self, name: str) -> tuple[Question, ...]:
        """Test questions that the unchanged model answers rightly; found once and kept with the table."""
        cell, test = Cell(name, "known"), self.concepts[name].test[: self.config.n_asked]
        if self.store.missing(cell):
            right = ask(self.lm, test).scores.correct
            texts = [a.text for a in vital_articles()] + list(web_passages())
            often = corpus_frequency(self.concepts[name], texts)
            ids = [q.id for q, ok in zip(test, right.tolist(), strict=True) if ok]
            numbers = {"accuracy": proportion(int(right.sum()), len(right)), "per_million": _point(often)}
            self.store.add(cell, numbers, record=ids)
        found = self.store.record(cell)
        return tuple(q for q in test if q.id in found)

    def asked(self, name: str) -> tuple[list[Question], int]:
        """Known questions of the concept, then of the others, taken in turn; and how many are the concept's."""
        own = list(self.known(name)[: self.config.n_own])
        queues = [self.known(other) for other in self.concepts if other != name]
        dealt = [q for row in range(self.config.n_others) for queue in queues for q in queue[row : row + 1]]
        return own + dealt[: self.config.n_others], len(own)


# ---- masking ------------------------------------------------------------------------------------------------
def _mask(bench: Bench, name: str, stage: str) -> None:
    shares = [s for s in bench.config.shares if s != MAIN] if stage == "curves" else [MAIN]
    grid = [Cell(name, m, budget=s) for s in shares for m in STAGES[stage]]
    clues = [Cell(name, m, "clues", MAIN) for m in CLUED if stage == "words"]
    if not any(map(bench.store.missing, [*grid, *clues])):
        return
    rankings = _rankings(bench, name)
    if stage == "main":
        _overlap(bench, name)
    questions, n_own = bench.asked(name)
    if n_own < 2:
        say(f"{name}: {n_own} of its test questions are known; what masking costs cannot be measured.")
        return
    before = score_questions(bench.lm, questions)
    for cell in filter(bench.store.missing, grid):
        mask = _set(bench, name, rankings, cell)
        if mask is not None:
            _masked(bench, cell, mask, questions, n_own, before)
    _clues(bench, name, rankings, clues)
    _contrasts(bench.store, name, bench.config.shares)


def _rankings(bench: Bench, name: str) -> dict[str, Float[Tensor, "layers d_mlp"]]:
    """Scores of all vectors, by what the ranking reads."""
    words = bench.subject(name)
    names = list(bench.concepts)
    group = shuffled_groups([len(bench.dev(n)) for n in names], bench.store.seed)[names.index(name)]
    everything = torch.cat([bench.activity[n] for n in names])
    rest = torch.ones(len(everything), dtype=torch.bool)
    rest[group] = False
    texts = {
        "masked": without_words(stems(bench.dev(name)), words),
        "words": [f"The {w}" for w in bench.concepts[name].words[: bench.config.n_dev]],
    }
    found = {kind: bench.scores(name, question_activity(bench.lm, rows)) for kind, rows in texts.items()}
    own, permuted = bench.scores(name, bench.activity[name]), differential(everything[group], everything[rest])
    return found | {"own": own, "permuted": permuted}


def _set(bench: Bench, name: str, rankings: dict[str, Tensor], cell: Cell) -> Bool[Tensor, "layers d_mlp"] | None:
    """The vectors that a cell masks; None where the control cannot be made."""
    own = most_specific(rankings["own"], float(cell.budget))
    try:
        if cell.method == "equal":
            return equally_active(own, bench.activity[name].mean(0), bench.store.seed)
        if cell.method == "random":
            return random_vectors(own, bench.store.seed)
    except NotPossible as error:
        say(f"{name}, {cell.method} at {cell.budget}: {error}")
        return None
    return most_specific(rankings[cell.method], float(cell.budget))


def _masked(
    bench: Bench, cell: Cell, mask: Tensor, questions: Sequence[Question], n_own: int, before: QuestionScores
) -> None:
    """What masking costs (nats per token of the right answer): the concept, the others, and the gap between them."""
    with Masking(mask).applied(bench.lm):
        scored = cell.method in SCORED and cell.budget == MAIN
        after = score_questions(bench.lm, questions) if scored else None
        gold = after.gold if after else gold_logprobs(bench.lm, questions)
    own, others = (before.gold - gold).split([n_own, len(questions) - n_own])
    numbers = {
        "own_cost": bootstrap(own), "other_cost": bootstrap(others), "gap": gap_interval(own, others),
        "vectors": _point(float(mask.sum())), "mean_layer": _point(float(mask.nonzero()[:, 0].double().mean())),
    }  # fmt: skip
    if after:
        right = [x.correct.double().split([n_own, len(questions) - n_own]) for x in (before, after)]
        lost = (before.margin - after.margin).split([n_own, len(questions) - n_own])
        numbers |= {"score": score_interval(right[0][1], right[1][1], right[1][0]), "margin_gap": gap_interval(*lost)}
        numbers |= {"own_right": bootstrap(right[1][0]), "other_right": bootstrap(right[1][1])}
    record = {"own": _rounded(own), "others": _rounded(others), "layers": mask.sum(1).tolist()}
    bench.store.add(cell, numbers, record=record)
    say(f"{cell.concept}, {cell.method} at {cell.budget}: own {numbers['own_cost']}, others {numbers['other_cost']}")


def _clues(bench: Bench, name: str, rankings: dict[str, Tensor], cells: Sequence[Cell]) -> None:
    """The same sets on facts of the concept asked for without a subject word."""
    if not any(map(bench.store.missing, cells)):
        return
    asked = wordless(bench.concepts[name].test, bench.subject(name))
    known = ask(bench.lm, asked, 18).known(10)
    for cell in filter(bench.store.missing, cells):
        mask = _set(bench, name, rankings, cell)
        if mask is not None:
            with Masking(mask).applied(bench.lm):
                cost = known.scores.gold - gold_logprobs(bench.lm, known.questions)
            bench.store.add(cell, {"own_cost": bootstrap(cost)}, record={"own": _rounded(cost)})


def _contrasts(store: Store, name: str, shares: Sequence[float]) -> None:
    """The concept's vectors minus equally active ones, question by question, and minus the other controls."""
    for kind, share, rivals in [("", s, ("equal", "random")) for s in shares] + [("clues", MAIN, ("equal",))]:
        mine = store.record(Cell(name, "own", kind, share))
        for rival in rivals + (("permuted", "words") if share == MAIN and not kind else ()):
            theirs = store.record(Cell(name, rival, kind, share))
            if mine and theirs:
                numbers = {"own_cost": paired_bootstrap(mine["own"], theirs["own"])}
                if not kind:
                    a, b = ([x - y for x, y in zip(mine[k], theirs[k], strict=True)] for k in ("own", "others"))
                    numbers["gap"] = gap_interval(torch.tensor(a), torch.tensor(b))
                store.add(Cell(name, f"own-{rival}", kind, share), numbers)


def _overlap(bench: Bench, name: str, share: float = 0.01) -> None:
    """How much of the concept's set is in the other concepts' sets, and between the two halves of its questions."""
    if not bench.store.missing(Cell(name, "overlap")):
        return
    half = len(bench.activity[name]) // 2
    halves = [
        most_specific(bench.scores(name, bench.activity[name][s]), share) for s in (slice(half), slice(half, None))
    ]
    sets = [most_specific(bench.scores(n, a), share) for n, a in bench.activity.items()]
    row = overlap(sets)[list(bench.activity).index(name)]
    others = [x for n, x in zip(bench.activity, row.tolist(), strict=True) if n != name]
    numbers = {
        "within": _point(float(overlap(halves)[0, 1])),
        "between": mean_interval(others),
        "chance": _point(share),
    }
    bench.store.add(Cell(name, "overlap"), numbers, record=_rounded(row))


# ---- teaching -----------------------------------------------------------------------------------------------
def _teach(bench: Bench, name: str, cfg: TeachingConfig) -> None:
    """The same invented facts through five sets of vectors, all to the same loss."""
    share = bench.config.teach_share
    for seed in range(bench.config.teach_seeds):
        cells = [Cell(name, arm, "teaching", share, seed) for arm in ARMS]
        if any(map(bench.store.missing, cells)):
            sets = teaching_sets(bench.scores(name, bench.activity[name]), bench.activity[name].mean(0), share, seed)
            for cell in filter(bench.store.missing, cells):
                numbers = _taught(bench, name, sets[cell.method], cfg, seed)
                bench.store.add(cell, numbers)
                shown = ", ".join(f"{k} {v.value:.2f}" for k, v in numbers.items())
                say(f"{name} taught through {cell.method}: {shown}")


def teaching_sets(
    scores: Float[Tensor, "layers d_mlp"], activity: Float[Tensor, "layers d_mlp"], share: float, seed: int = 0
) -> dict[str, Bool[Tensor, "layers d_mlp"]]:
    """The arms: the concept's vectors, as many equally active, as many random, all but the concept's, all."""
    own = most_specific(scores, share)
    found = [own, equally_active(own, activity, seed), random_vectors(own, seed), ~own, torch.ones_like(own)]
    return dict(zip(ARMS, found, strict=True))


def _taught(bench: Bench, name: str, mask: Tensor, cfg: TeachingConfig, seed: int) -> dict[str, Interval]:
    lm, lessons = bench.lm, invented(name, bench.config.n_people, seed)
    questions, n_own = bench.asked(name)
    parts = [len(lessons.held_out), len(lessons.untaught), len(questions)]
    everything = [*lessons.held_out, *lessons.untaught, *questions]
    before = score_questions(lm, everything)
    made = teach_through(lm, lessons.taught, mask, cfg)
    with made.edit.applied(lm):
        after = score_questions(lm, everything)
    held, sure, cost = ((b, a) for b, a in zip(*(_split(s, parts) for s in (before, after)), strict=True))
    own, others = (cost[0].gold - cost[1].gold).split([n_own, len(questions) - n_own])
    wrong = [1 - s.logprobs.softmax(1).gather(1, s.answers[:, None])[:, 0] for s in held]
    certain = [s.logprobs.softmax(1).amax(1) for s in sure]
    return {
        "loss": _point(made.loss), "steps": _point(made.steps), "reached": _point(float(made.reached)),
        "vectors": _point(float(mask.sum())), "right": bootstrap(held[1].correct.double()),
        "right_before": bootstrap(held[0].correct.double()), "wrong": bootstrap(wrong[1]),
        "certain_untaught": bootstrap(certain[1] - certain[0]), "own_cost": bootstrap(own),
        "other_cost": bootstrap(others), "drift": bootstrap(drift(lm, made.edit, held_out_passages("test", 12))),
    }  # fmt: skip


def _split(scores: QuestionScores, sizes: Sequence[int]) -> list[QuestionScores]:
    ends = torch.tensor(list(sizes)).cumsum(0).tolist()
    return [scores.only(torch.arange(end - n, end)) for n, end in zip(sizes, ends, strict=True)]


# ---- over concepts ------------------------------------------------------------------------------------------
def _pool(store: Store, config: SpecialisationConfig) -> None:
    """Means over concepts, the share of concepts whose interval excludes 0, frequency, and the teaching contrasts."""
    found: dict[tuple[str, ...], dict[str, Interval]] = {}
    for row in store.rows:
        key = (row["method"], row["attack"], row["budget"])
        value = Interval(*(float(row[k]) for k in ("value", "low", "high")), int(row["n"]))
        found.setdefault((*key, row["metric"]), {})[f"{row['concept']}/{row['seed']}"] = value
    pooled: dict[tuple[str, ...], dict[str, Interval]] = {}
    for (method, attack, budget, metric), values in found.items():
        if len(values) > 2 and method != "known":
            numbers = pooled.setdefault((method, attack, budget), {})
            numbers[metric] = mean_interval([x.value for x in values.values()])
            if method.startswith("own-"):
                numbers[f"{metric}_sure"] = proportion(sum(x.low > 0 for x in values.values()), len(values), "concepts")
    for (method, attack, budget, metric), values in found.items():
        if attack == "teaching" and method != "own":
            mine = found.get(("own", attack, budget, metric), {})
            both = [mine[k].value - values[k].value for k in values if k in mine]
            if len(both) > 2:
                pooled.setdefault((f"own-{method}", attack, budget), {})[metric] = mean_interval(both)
    store.add_all({Cell("all", m, a, b): x for (m, a, b), x in pooled.items() if x})
    often, gaps = found.get(("known", "", "", "per_million"), {}), found.get(("own", "", f"{MAIN:g}", "gap"), {})
    both_known = [k for k in often if k in gaps]
    if len(both_known) > 3:
        x, y = (torch.tensor([d[k].value for k in both_known]) for d in (often, gaps))
        ranks = [v.argsort().argsort().double() for v in (x, y)]
        rho = correlation_interval(*ranks, torch.arange(len(x)), seed=store.seed)
        store.add(Cell("all", "frequency"), {"spearman_gap": rho})


def _point(value: float | int) -> Interval:
    return Interval(value, value, value, 1)


def _rounded(values: Tensor) -> list[float]:
    return [round(float(x), 4) for x in values]
