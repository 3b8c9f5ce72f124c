"""The attacks of the lab: cells of one concept and method under every attack, and the never-taught control."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import torch

from ..attacks import (
    MEASURES,
    TEACHING,
    AttackResult,
    Budget,
    Setting,
    erased_copies,
    known_questions,
    never_taught,
    rates_of,
    run_attack,
    setting_for,
    summarise,
    teach,
)
from ..core import Cell, Interval, NotPossible, Store, bootstrap, say
from ..data import Concept, Fiction, fact_texts, general_questions, load_concept, load_fiction, unrelated_texts
from ..edits import Intervention, WeightEdit, applied
from ..erasure import Loss, NegativePreference, TuningConfig, finetune_texts
from ..evaluation import ask
from ..models import LanguageModel
from .pooled import DIRECT, Record, direct_record, record_of
from .scoring import number

COST = "cost"  # the budget of the cell that holds steps and tokens, and the attack's record
ATTACKS = (
    "relearning", "relearning_facts", "relearning_unrelated", "quantisation", "quantisation_groups", "undoing",
    "clamped", "logit_lens", "probability_delta", "probe", "forms",
    "role", "story", "article", "definition", "priming", "paraphrase", "language", "step_by_step", "soft_prompt",
)  # fmt: skip
OF_EDITS = ("undoing", "clamped")  # attacks on the change itself, which the original has none of
# What each attack may spend in the table. Single concepts can afford more.
BUDGET = Budget(
    steps=5, batch_size=6, n_ctx=24, n_facts=60, form_questions=12, thoughts=12, soft_steps=8, controls=False,
    strengths=(
        ("relearning", (2, 5)), ("relearning_facts", (5,)), ("relearning_unrelated", (5,)), ("quantisation", (4,)),
        ("quantisation_groups", (4,)), ("undoing", (4,)), ("clamped", (0, 8)), ("role", (2,)), ("story", (2,)),
        ("article", (600,)), ("priming", (8,)), ("paraphrase", (1, 2)), ("step_by_step", (1,)),
    ),
)  # fmt: skip
FICTION = ("relearning", "relearning_facts", "quantisation", "priming", "definition", "paraphrase", "soft_prompt")
FICTION_ERASER = TuningConfig(steps=10, batch_size=6, n_ctx=24, lr=1e-4)


def budget_for(lm: LanguageModel, budget: Budget) -> Budget:
    """The budget at the learning rates that the model bears, with probes of three layers."""
    texts = unrelated_texts(load_concept("japan"), 10)
    known = ask(lm, general_questions("dev"), 24).known(16)
    rates = rates_of(lm, texts, known.questions, budget.steps)
    n = lm.n_layers  # a probe of every third layer would cost a tenth of the whole table
    layers = tuple(sorted({n // 4, n // 2, 3 * n // 4}))
    return replace(budget, lr=rates.relearn, lora_lr=rates.lora, read_layers=budget.read_layers or layers)


class Attacking:
    """Attacks on the edits of one concept, cell by cell, into the lab's table."""

    def __init__(
        self,
        lm: LanguageModel,
        store: Store,
        budget: Budget,
        names: Sequence[str],
        concept: Concept | None = None,
        n_questions: int = 14,
        split: str = "test",
    ):
        self.lm, self.store, self.names, self.concept = lm, store, names, concept
        self.budget, self.n, self.split = replace(budget, seed=store.seed), n_questions, split

    @functools.cached_property
    def setting(self) -> Setting:
        """Known test questions, and what the attacker is given."""
        assert self.concept is not None
        asked = known_questions(self.lm, self.concept, self.n, self.split)
        return setting_for(self.concept, asked, self.budget)

    @functools.cached_property
    def original(self):
        """The questions as the original answers them."""
        return self.setting.score(self.lm)

    def method(self, method: str, make: Callable[[], Intervention | None]) -> None:
        """Every attack on one method's edit; None is the original."""
        assert self.concept is not None
        name = self.concept.name
        wanted = [DIRECT, *(a for a in self.names if method != "original" or a not in OF_EDITS)]
        missing = [a for a in wanted if self.store.missing(Cell(name, method, a, COST))]
        if not missing:
            return
        try:
            edit = make()
            _ = self.original  # scored before the edit is applied
        except NotPossible as reason:
            say(f"{name} {method}: {reason}")
            return
        with torch.no_grad(), applied(edit, self.lm):
            erased = self.setting.score(self.lm)
        for attack in missing:
            self._cell(method, attack, edit, erased)

    def _cell(self, method: str, attack: str, edit: Intervention | None, erased) -> None:
        assert self.concept is not None
        name, cost = self.concept.name, (0, 0)
        try:
            if attack == DIRECT:
                record = direct_record(erased)
                pairs = zip(record.labels, record.values, strict=True)
                rows = {label: {"value": bootstrap(v)} for label, v in pairs}
            else:
                result = run_attack(attack, self.lm, edit, self.setting)
                record, cost = record_of(attack, result, self.setting), (result.cost.steps, result.cost.tokens)
                top = Record.read(self.store.record(Cell(name, "original", attack, COST)))
                ceiling = top.ceiling() if top is not None and top.labels == record.labels else None
                rows = summarise(attack, result, self.original, erased, self.setting, ceiling)
        except NotPossible as reason:
            say(f"{name} {method} {attack}: {reason}")
            none = {"possible": Interval(0.0, 0.0, 0.0, 1)}
            return self.store.add(Cell(name, method, attack, COST), none, record={"not possible": str(reason)})
        self._write(name, method, attack, rows, cost, asdict(record))
        shown = ", ".join(f"{k}: {v.get('share', v.get('kept', v['value']))}" for k, v in rows.items())
        say(f"{name} {method} {attack}: {shown}")

    def _write(self, concept: str, method: str, attack: str, rows: dict, cost: tuple[int, int], record: dict) -> None:
        """All strengths of one attack and what it cost, together."""
        cells = {Cell(concept, method, attack, strength): found for strength, found in rows.items()}
        last = Cell(concept, method, attack, COST)
        cells[last] = {k: number(x) for k, x in zip(("steps", "tokens"), cost, strict=True)}
        self.store.add_all(cells, {last: record})

    # ---- the never-taught control ---------------------------------------------------------------------------
    def fiction(self) -> None:
        """`never_taught`: gain of the taught and erased copy under attack above that of a copy that never knew."""
        lm, fiction, seed = self.lm, load_fiction(), self.store.seed
        setting = setting_for(fiction, budget=self.budget)
        usable = [n for n in self.names if n in FICTION and n not in MEASURES]
        missing = [n for n in usable if self.store.missing(Cell(fiction.name, "never_taught", n, COST))]
        if not missing:
            return
        known = ask(lm, general_questions("dev"), 24).known(16)
        rates = rates_of(lm, setting.unrelated, known.questions, self.budget.steps)
        taught = teach(lm, fiction.lessons(), replace(TEACHING, lr=rates.teach, seed=seed))
        cfg = replace(FICTION_ERASER, lr=rates.erase_fiction, seed=seed)
        copies = erased_copies(lm, taught, functools.partial(erase_fiction, fiction=fiction, setting=setting, cfg=cfg))
        for attack in missing:
            found = never_taught(lm, taught, copies, functools.partial(_strike, attack, setting), setting.questions)
            cells = {}
            for i, strength in enumerate(found.attacked.labels or found.attacked.steps):
                scores = {"taught": found.taught, "erased": found.erased, "never": found.never}
                scores |= {"attacked": found.attacked.values[i], "never_attacked": found.never_attacked.values[i]}
                cells[strength] = {name: bootstrap(s.margin) for name, s in scores.items()}
                cells[strength]["above_control"] = found.above_control(at=i)
            cost = found.attacked.cost
            self._write(fiction.name, "never_taught", attack, cells, (cost.steps, cost.tokens), {})
            say(f"never taught, {attack}: {found.above_control()}")


def erase_fiction(
    lm: LanguageModel, fiction: Fiction, setting: Setting, cfg: TuningConfig = FICTION_ERASER
) -> WeightEdit:
    """NPO on the invented facts that are tested; the other facts and unrelated texts are to be kept."""
    keep = [*setting.unrelated[:10], *fact_texts(setting.facts)]
    return finetune_texts(lm, Loss(NegativePreference()), fiction.lessons(setting.questions), keep, cfg)


def _strike(attack: str, setting: Setting, lm: LanguageModel, edit: WeightEdit) -> AttackResult:
    return run_attack(attack, lm, edit, setting)
