"""Is it really gone? Concepts x methods of erasure x attacks, with the controls.

The edits are those of `conceptlab.erasure`, with the strength that it chooses on *dev*. The other methods are brought
to the direct efficacy of PISCES, again on dev: gradient ascent and NPO train until the margin of known dev questions
has fallen as far as under the PISCES edit (what overshot is scaled back), and Needle takes the number of vectors that
comes closest. Test questions, those that the original answers rightly, judge everything. The controls are the original
under every attack (ceiling), a random edit of equal norm, and invented facts that one copy was taught and another was
not (`never_taught`).
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

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
    run_attack,
    setting_for,
    summarise,
    teach,
)
from ..core import ConceptLabError, Interval, atomic_path, bootstrap, table_path
from ..data import Concept, load_concept, load_fiction
from ..edits import WeightEdit, applied
from ..erasure import ErasureConfig
from ..models import LanguageModel
from .matched import ERASER, ERASERS, FICTION_ERASER, Edits, erase_fiction
from .pooled import DIRECT, Records, direct_record, pooled, record_of
from .table import ResultTable

CONCEPTS = {
    "smollm2-135m": ("chemical_elements", "japan", "ancient_rome", "astronomy", "world_war_ii", "greek_culture"),
    "gemma3-270m": ("chemical_elements", "japan", "ancient_rome"),
}


METHODS = ("original", "pisces", "pisces_embedding", "pisces_words", "needle", *ERASERS, "random")


NAMES = (
    "relearning", "relearning_facts", "relearning_unrelated", "quantisation", "quantisation_groups", "undoing",
    "logit_lens", "probability_delta", "probe", "forms",
    "role", "story", "article", "definition", "priming", "paraphrase", "language", "step_by_step", "soft_prompt",
)  # fmt: skip


# What each attack may spend in the table: 20 minutes for a concept on one CPU core. Single concepts can afford more.
BUDGET = Budget(
    steps=5, batch_size=6, n_ctx=24, n_facts=60, form_questions=12, thoughts=12, soft_steps=8, controls=False,
    strengths=(
        ("relearning", (2, 5)), ("relearning_facts", (5,)), ("relearning_unrelated", (5,)), ("quantisation", (4,)),
        ("quantisation_groups", (4,)), ("undoing", (4,)), ("role", (2,)), ("story", (2,)), ("article", (600,)),
        ("priming", (8,)), ("paraphrase", (1, 2)), ("step_by_step", (1,)),
    ),
)  # fmt: skip


# Learning rates where those of SmolLM2 do not serve: at 3e-4 two steps of relearning cost the unedited Gemma all its
# margin on dev questions, at 1e-5 five steps cost an eighth.
RATES = {"gemma3-270m": {"relearn": 1e-5, "erase": 2e-5, "teach": 3e-5, "erase_fiction": 1e-5}}


FICTION = ("relearning", "relearning_facts", "quantisation", "priming", "definition", "paraphrase", "soft_prompt")


LARGEST = 100_000  # numbers in an edit that is kept; one of PISCES has about 2,000 per feature


LONGEST = 50  # entries of a list in an edit's note that the provenance keeps


Maker = Callable[[LanguageModel, Concept], Callable[[str], WeightEdit]]


def attacks(
    lm: LanguageModel,
    table: ResultTable,
    concepts: Sequence[str] | None = None,
    methods: Sequence[str] = METHODS,
    names: Sequence[str] = NAMES,
    n_questions: int = 14,
    budget: Budget | None = None,
    maker: Maker | None = None,
    split: str = "test",
) -> None:
    """One cell per concept, method and attack; `budget` is the strength, or "cost" for steps and tokens used.

    Metrics are those of `conceptlab.attacks.summarise`; the attack "direct" holds what the edit does by itself. At the
    end come the cells of all concepts together (concept "all", see `pooled`). Finished cells are kept, half-written
    ones done again. `budget`: BUDGET at the model's learning rate unless given; its seed is that of the table. What
    cannot be run on a concept (no translations, no atom to edit) is named in the provenance.
    """
    concepts = CONCEPTS.get(lm.name, CONCEPTS["gemma3-270m"]) if concepts is None else concepts
    budget = budget or replace(BUDGET, lr=RATES.get(lm.name, {}).get("relearn", BUDGET.lr))
    budget = replace(budget, seed=table.seed)
    maker = maker or edit_maker(lm, table.seed)
    if budget.read_layers is None:
        n = lm.n_layers  # a probe of every third layer would cost a tenth of the whole table
        budget = replace(budget, read_layers=tuple(sorted({n // 4, n // 2, 3 * n // 4})))
    how = asdict(budget) | {"seed": "that of the cell"}
    table.begin(
        concepts=list(concepts), methods=list(methods), budget=how, n_questions=n_questions, split=split,
        erasure=asdict(ErasureConfig()), erasers=[asdict(ERASER), asdict(FICTION_ERASER), RATES.get(lm.name, {})],
    )  # fmt: skip
    records = Records(table.partial.with_suffix(".questions.json"), table.seed, resume=bool(table.rows))
    run = _Run(lm, table, names, budget, records)
    known = functools.partial(known_questions, lm, n=n_questions, split=split)
    for name in concepts:
        run.concept(name, methods, known, maker)
    run.fiction()
    for method in methods:
        for attack in (DIRECT, *names):
            for label, found in pooled(run.records, concepts, method, attack).items():
                if table.missing("all", method, attack, label):
                    table.add(found, "all", method, attack, label)
    table.close(
        concepts=list(concepts), methods=list(methods), attacks=list(names), n_questions=n_questions,
        split=split, budget=json.loads(json.dumps(asdict(budget))), edits=run.edits, skipped=run.skipped,
    )  # fmt: skip
    run.notes.unlink(missing_ok=True)
    made, kept = (edit_path(path, "", "").parent for path in (table.partial, table.path))
    shutil.rmtree(kept, ignore_errors=True)  # edits change together with the numbers, and none of another run stays
    if made.exists():
        made.replace(kept)
    if records.path.exists():  # what the cells of all concepts together are made of
        records.path.replace(table.path.with_suffix(".questions.json"))


class _Run:
    """The table and what is needed to fill it, one concept after the other."""

    def __init__(self, lm: LanguageModel, table: ResultTable, names: Sequence[str], budget: Budget, records: Records):
        self.lm, self.table, self.names, self.budget, self.records = lm, table, names, budget, records
        self.skipped: list[str] = []
        self.notes = table.partial.with_suffix(".edits.json")
        # concept and method -> what the edit says of itself; kept on disk, for a run that is resumed
        self.edits: dict[str, dict] = json.loads(self.notes.read_text()) if self.notes.exists() else {}

    # ---- one concept ----------------------------------------------------------------------------------------
    def concept(self, name: str, methods: Sequence[str], known: Callable, maker: Maker) -> None:
        todo = {m: [a for a in self._wanted(m) if not self._done(name, m, a)] for m in methods}
        if not any(todo.values()):
            return
        concept = load_concept(name)
        setting = setting_for(concept, known(concept=concept), self.budget)
        original = setting.score(self.lm)
        make = maker(self.lm, concept)
        for method, attacks in todo.items():
            if attacks:
                self._method(name, method, attacks, setting, original, make)

    def _wanted(self, method: str) -> list[str]:
        return [DIRECT, *(a for a in self.names if (method, a) != ("original", "undoing"))]

    def _method(self, name: str, method: str, attacks: list[str], setting: Setting, original, make: Callable) -> None:
        try:
            edit = None if method == "original" else self._edit(name, method, make)
        except ConceptLabError as error:
            return self._skip(f"{name} {method}: {error}")
        self.edits[f"{name} {method}"] = {} if edit is None else _brief(edit.info)
        with atomic_path(self.notes) as temporary:
            temporary.write_text(json.dumps(self.edits) + "\n")
        with torch.no_grad(), applied(edit, self.lm):
            erased = setting.score(self.lm)
        for attack in attacks:
            try:
                self._cell(name, method, attack, edit, setting, original, erased)
            except ConceptLabError as error:
                self._skip(f"{name} {method} {attack}: {error}")

    def _edit(self, name: str, method: str, make: Callable) -> WeightEdit:
        """The edit of a method; small ones are kept beside the table, and read again when a run is resumed."""
        path = edit_path(self.table.partial, name, method)
        if path.exists() and self._rows(name, method, DIRECT):
            return WeightEdit.load(path)
        edit = make(method)
        if edit_size(edit) <= LARGEST:
            path.parent.mkdir(parents=True, exist_ok=True)
            edit.save(path)
        return edit

    def _cell(self, name: str, method: str, attack: str, edit, setting: Setting, original, erased) -> None:
        if attack == DIRECT:
            record = direct_record(erased)
            rows = {label: {"value": bootstrap(v)} for label, v in zip(record.labels, record.values, strict=True)}
            cost = (0, 0)
        else:
            result = run_attack(attack, self.lm, edit, setting)
            record = record_of(attack, result, setting)
            top = self.records.get(name, "original", attack)
            ceiling = top.ceiling() if top is not None and top.labels == record.labels else None
            rows = summarise(attack, result, original, erased, setting, ceiling)
            cost = result.cost.steps, result.cost.tokens
        self.records.add(name, method, attack, record)
        self._write(name, method, attack, rows, cost)
        shown = ", ".join(f"{k}: {v.get('share', v.get('kept', v['value']))}" for k, v in rows.items())
        print(f"{name} {method} {attack}: {shown}", flush=True)

    # ---- the table ------------------------------------------------------------------------------------------
    def _rows(self, concept: str, method: str, attack: str) -> list[dict]:
        mine = str(self.table.seed)
        cell = (concept, method, attack, mine)
        return [r for r in self.table.rows if (r["concept"], r["method"], r["attack"], r["seed"]) == cell]

    def _done(self, concept: str, method: str, attack: str) -> bool:
        """Whether the last row of the cell, its cost, is there."""
        return any(r["budget"] == "cost" for r in self._rows(concept, method, attack))

    def _write(self, concept: str, method: str, attack: str, rows: dict, cost: tuple[int, int]) -> None:
        """Write a cell, its cost last; what an interruption left of it before is dropped."""
        for row in self._rows(concept, method, attack):
            self.table.rows.remove(row)
        for strength, found in rows.items():
            self.table.add(found, concept, method, attack, strength)
        steps, tokens = (Interval(float(x), float(x), float(x), 1) for x in cost)
        self.table.add({"steps": steps, "tokens": tokens}, concept, method, attack, "cost")

    def _skip(self, reason: str) -> None:
        self.skipped.append(reason)
        print(reason, flush=True)

    # ---- the never-taught control ---------------------------------------------------------------------------
    def fiction(self) -> None:
        """`never_taught`: gain of the taught and erased copy under attack above that of a copy that never knew."""
        lm, fiction = self.lm, load_fiction()
        setting = setting_for(fiction, budget=self.budget)
        usable = [n for n in self.names if n in FICTION and n not in MEASURES]
        missing = [n for n in usable if not self._done(fiction.name, "never_taught", n)]
        if not missing:
            return
        rates = RATES.get(lm.name, {})
        seed = self.table.seed
        taught = teach(lm, fiction.lessons(), replace(TEACHING, lr=rates.get("teach", TEACHING.lr), seed=seed))
        cfg = replace(FICTION_ERASER, lr=rates.get("erase_fiction", FICTION_ERASER.lr), seed=seed)
        erase = functools.partial(erase_fiction, fiction=fiction, setting=setting, cfg=cfg)
        copies = erased_copies(lm, taught, erase)
        for attack in missing:
            found = never_taught(lm, taught, copies, functools.partial(_strike, attack, setting), setting.questions)
            cells = {}
            for i, strength in enumerate(found.attacked.labels or found.attacked.steps):
                scores = {"taught": found.taught, "erased": found.erased, "never": found.never}
                scores |= {"attacked": found.attacked.values[i], "never_attacked": found.never_attacked.values[i]}
                cells[strength] = {name: bootstrap(s.margin) for name, s in scores.items()}
                cells[strength]["above_control"] = found.above_control(at=i)
            cost = found.attacked.cost
            self._write(fiction.name, "never_taught", attack, cells, (cost.steps, cost.tokens))
            print(f"never taught, {attack}: {found.above_control()}", flush=True)


def edit_maker(lm: LanguageModel, seed: int = 0) -> functools.partial:
    """`Edits` at the model's learning rates, with one set of dictionaries for all concepts."""
    eraser = replace(ERASER, lr=RATES.get(lm.name, {}).get("erase", ERASER.lr))
    return functools.partial(Edits, eraser=eraser, shared={}, seed=seed)


def edit_path(table: Path, concept: str, method: str) -> Path:
    """Where the edit of a concept that the table was made with is kept, if it is small."""
    return table.with_suffix("") / f"{concept}_{method}.safetensors"


def shipped_edit(lm: LanguageModel, concept: Concept, method: str = "pisces") -> WeightEdit:
    """The edit that the table in data/results was made with; made here, in minutes, where none is kept."""
    path = edit_path(table_path("attacks", lm.name), concept.name, method)
    return WeightEdit.load(path) if path.exists() else edit_maker(lm)(lm, concept)(method)


def _brief(info: dict) -> dict:
    """What an edit says of itself without its long lists (Needle names each of thousands of vectors)."""
    return {key: x for key, x in info.items() if not isinstance(x, list) or len(x) <= LONGEST}


def edit_size(edit: WeightEdit) -> int:
    """Numbers that describe an edit."""
    return sum(x.numel() for change in edit.changes.values() for x in vars(change).values())


def _strike(attack: str, setting: Setting, lm: LanguageModel, edit: WeightEdit) -> AttackResult:
    return run_attack(attack, lm, edit, setting)
