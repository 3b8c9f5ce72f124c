"""The retrain oracle as a table: methods on invented facts, brought to what a model knows that was never taught them.

A copy of the model is taught the invented facts; the model before the teaching is its twin, which a perfect erasure
would give back. Each method is fitted in the taught copy on the facts that it is shown, and its edit is scaled until
*these* facts weigh what they weigh in the twin. So all methods have done the same, exactly enough, to what they saw;
measured is what they did to the rest: facts about the same country that they never saw, a real neighbour, and general
questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from dataclasses import replace as changed
from pathlib import Path

import torch

from ..attacks import TEACHING, Rates, RelearnConfig, rates_of, teach
from ..core import Cell, Interval, NotPossible, Store, bootstrap, proportion, say, table_path
from ..data import fiction_concept, general_questions, load_fiction, unrelated_texts
from ..edits import Intervention, WeightEdit
from ..erasure import Shared, SharedConfig, get_method
from ..evaluation import (
    SearchConfig,
    ask,
    concept_questions,
    overshoot,
    score_questions,
)
from ..models import LanguageModel
from .matching import scale_to
from .scoring import number

METHODS = (
    "gradient_difference", "npo", "dpo", "flat", "ihl", "rmu", "rocr", "uld", "eco", "task_vector", "ssd",
    "random_norm",
)  # fmt: skip
TWIN = "never_taught"  # the method of the cell that says what the twin and the taught copy know


@dataclass(frozen=True)
class FictionConfig:
    """How many questions, and how far an edit may be stretched."""

    n_spared: int = 16  # known questions on the neighbour and general ones
    most: float = 4.0  # times the method's own strength


def fiction(
    lm: LanguageModel,
    path: Path | None = None,
    methods: Sequence[str] | None = None,
    seed: int = 0,
    cfg: FictionConfig | None = None,
    replace: bool = False,
) -> Path:
    """One cell per method, into `path` (default: its place in data/results); see `Store` for interruptions."""
    cfg = cfg or FictionConfig()
    names = [get_method(name).name for name in (METHODS if methods is None else methods)]
    title = load_fiction().name
    cells = [Cell(title, name) for name in (TWIN, *names)]
    with Store(
        path or table_path("fiction", lm.name), experiment="fiction", model=lm.name, fingerprint=lm.fingerprint(),
        settings=asdict(cfg), seed=seed, device=str(lm.device), replace=replace,
    ) as store:  # fmt: skip
        store.progress(cells)
        missing = [cell for cell in cells if store.missing(cell)]
        if missing:
            taught = taught_copy(lm)
            bench = Bench(lm, cfg)
            with taught.applied(lm):
                bench.begin(seed)
                for cell in missing:
                    _cell(store, bench, cell)
        return store.finish()


def taught_copy(lm: LanguageModel, cfg: RelearnConfig = TEACHING, rates: Rates | None = None) -> WeightEdit:
    """The edit that teaches every invented fact, at the learning rate that the model bears."""
    fiction = load_fiction()
    if rates is None:
        known = ask(lm, general_questions("dev"), 24).known(16)
        rates = rates_of(lm, unrelated_texts(fiction_concept(fiction), 10), known.questions, cfg.steps)
    return teach(lm, fiction.lessons(), changed(cfg, lr=rates.teach))


def _cell(store: Store, bench: Bench, cell: Cell) -> None:
    try:
        found = bench.twin() if cell.method == TWIN else bench.measure(cell.method)
    except NotPossible as reason:
        say(f"{cell.concept} {cell.method}: {reason}")
        return store.add(cell, {"possible": number(0.0)}, record={"not possible": str(reason)})
    store.add(cell, {k: x for k, x in found.items() if x.bounded})
    say(f"{cell.method}: " + ", ".join(f"{k} {x}" for k, x in found.items() if "removed" in k or "lost" in k))


class Bench:
    """The invented facts in the twin (when it is made) and in the taught copy (from `begin` on)."""

    def __init__(self, lm: LanguageModel, cfg: FictionConfig):
        self.lm, self.cfg, self.concept = lm, cfg, fiction_concept(load_fiction())
        self.held_out = self.concept.test
        self.never = {"dev": score_questions(lm, self.concept.dev), "test": score_questions(lm, self.held_out)}

    @torch.no_grad()
    def begin(self, seed: int) -> None:
        """Inside the taught copy: what it knows, and what it must not lose."""
        lm, n = self.lm, self.cfg.n_spared
        search = SearchConfig(n_questions=2, n_asked=2, n_clues=0, n_texts=1)
        self.shared = Shared(lm, self.concept, cfg=SharedConfig(search=search), seed=seed)
        self.shown = self.shared.forget_facts
        places = torch.tensor([self.concept.dev.index(q) for q in self.shown])
        self.before = {"shown": score_questions(lm, self.shown), "held_out": score_questions(lm, self.held_out)}
        self.zero = {"shown": self.never["dev"].only(places), "held_out": self.never["test"]}
        sets = concept_questions(self.concept, "test")
        self.spared = {name: ask(lm, sets[name], 2 * n).known(n) for name in ("neighbour", "general")}

    def twin(self) -> dict[str, Interval]:
        """What was taught: gap between the copies, in nats, and how many answers are right in each."""
        found: dict[str, Interval] = {}
        for name, before in self.before.items():
            over = overshoot(before, before, self.zero[name])
            found |= {f"gap_{name}": over.gap, f"accuracy_{name}": over.accuracy_before}
            found[f"accuracy_never_{name}"] = over.accuracy_never
        return found

    def measure(self, name: str) -> dict[str, Interval]:
        """One method at the strength at which the shown facts weigh what they weigh in the twin."""
        lm, known = self.lm, get_method(name)
        edit = known.fit(lm, self.concept, known.config, self.shared)
        gap = float((self.before["shown"].gold - self.zero["shown"].gold).mean())

        @torch.no_grad()
        def left(at: Intervention) -> float:
            with at.applied(lm):
                return float((score_questions(lm, self.shown).gold - self.zero["shown"].gold).mean()) / gap

        chosen, scale, rest = scale_to(edit, left, 0.0, self.cfg.most)
        with torch.no_grad(), chosen.applied(lm):
            after = {"shown": score_questions(lm, self.shown), "held_out": score_questions(lm, self.held_out)}
            now = {key: score_questions(lm, asked.questions) for key, asked in self.spared.items()}
        found = {"scale": number(scale), "left_shown": number(rest)}
        for key, scores in after.items():
            over = overshoot(self.before[key], scores, self.zero[key])
            found |= {f"removed_{key}": over.removed, f"below_{key}": over.below}
            found[f"accuracy_{key}"] = over.accuracy_after
        for key, scores in now.items():
            found[f"lost_{key}"] = bootstrap(self.spared[key].scores.gold - scores.gold, over="questions")
            found[f"still_{key}"] = proportion(int(scores.correct.sum()), len(scores.correct))
        return found
