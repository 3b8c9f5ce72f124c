"""Is it really gone? Concepts x methods of erasure x attacks, each at several strengths, with the controls.

The methods are brought to the same direct efficacy first: of a ladder of edits per method, the one whose loss of margin
on *dev* questions comes closest to `drop` times what the original has above 0. Test questions judge everything. The
controls are the original under every attack (ceiling), a random edit of equal norm, and invented facts that one copy
was taught and another was not (`never_taught`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence

import torch

from ..attacks import (
    SUITE,
    Budget,
    EraserConfig,
    Setting,
    erased_copies,
    fact_texts,
    finetuned_eraser,
    forget_and_keep,
    load_fiction,
    never_taught,
    run_attack,
    setting_for,
    summarise,
    teach,
    translatable,
)
from ..attacks.base import AttackResult, applied
from ..attacks.suite import MEASURES
from ..cache import ConceptLabError
from ..concept_vectors import noise_edit, search
from ..concepts import Concept, course_texts, load_concept
from ..edits import WeightEdit, random_like
from ..evaluation import Interval, bootstrap, score_questions
from ..models import LanguageModel
from ..pisces import directional_edit, find_features
from ..profiles import get_profile
from ..sae import TrainConfig, live_dictionaries, load_shipped, shipped_layers
from ..text import token_rows
from .table import ResultTable

CONCEPTS = {
    "smollm2-135m": ("ancient_rome", "astronomy", "chemical_elements", "golf", "japan", "world_war_ii"),
    "gemma3-270m": ("ancient_rome", "chemical_elements", "japan"),
}
ERASERS = ("gradient_ascent", "npo")
METHODS = ("original", "random", "pisces", "needle", *ERASERS)
LEARNING_RATES = (2e-5, 5e-5, 1e-4, 2e-4, 4e-4)  # the ladder of the fine-tuned erasers
STRENGTHS = (1.0, 2.0, 3.0, 5.0)  # of PISCES' directional edit; 1 ablates, 2 turns round
NOISES = (1.0, 3.0, 10.0, 30.0)  # of Needle, lengths of the value vector


def attacks(
    lm: LanguageModel,
    table: ResultTable,
    concepts: Sequence[str] | None = None,
    methods: Sequence[str] = METHODS,
    names: Sequence[str] = tuple(SUITE),
    n_questions: int = 40,
    drop: float = 0.6,
    budget: Budget | None = None,
    ladders: Callable[[LanguageModel, Concept, str], Iterable[WeightEdit]] | None = None,
) -> None:
    """One cell per concept, method and attack; `budget` is the strength, or "cost" for steps and tokens used.

    Metrics are those of `conceptlab.attacks.summarise`. Finished cells are kept, half-written ones done again. What
    cannot be run on a concept (no translations, too few facts, a divergence) is named in the provenance.
    """
    concepts = CONCEPTS.get(lm.name, CONCEPTS["gemma3-270m"]) if concepts is None else concepts
    ladders, budget = ladders or _Ladders(), budget or Budget()
    skipped: list[str] = []
    for name in concepts:
        cells = [(m, a) for m in methods for a in names if (m, a) != ("original", "undoing")]
        if all(_done(table, name, m, a) for m, a in cells):
            continue
        concept = load_concept(name)
        foreign = translatable(concept.test)  # first, so that the attack in other languages has enough of them
        setting = setting_for(
            concept, sorted(concept.test, key=lambda q, own=foreign: q not in own)[:n_questions], budget
        )
        edits: dict[str, WeightEdit | None] = {"original": None}
        ceilings: dict[str, AttackResult] = {}
        for method in methods:
            todo = [a for a in names if (method, a) in cells and not _done(table, name, method, a)]
            if todo and method not in edits:
                edits[method] = _edit(lm, concept, method, edits, ladders, drop)
            for attack in todo:
                try:
                    _cell(lm, table, name, method, attack, edits[method], setting, ceilings)
                except ConceptLabError as error:
                    skipped.append(f"{name} {method} {attack}: {error}")
                    print(skipped[-1], flush=True)
    _never_taught_cells(lm, table, names, budget)
    table.close(
        concepts=list(concepts), methods=list(methods), attacks=list(names), n_questions=n_questions, drop=drop,
        skipped=skipped,
    )  # fmt: skip


def _rows(table: ResultTable, concept: str, method: str, attack: str) -> list[dict]:
    return [r for r in table.rows if (r["concept"], r["method"], r["attack"]) == (concept, method, attack)]


def _done(table: ResultTable, concept: str, method: str, attack: str) -> bool:
    """Whether the last row of the cell, its cost, is there."""
    return any(r["budget"] == "cost" and r["seed"] == str(table.seed) for r in _rows(table, concept, method, attack))


def _write(table: ResultTable, concept: str, method: str, attack: str, rows: dict, result: AttackResult) -> None:
    """Write a cell, its cost last; what an interruption left of it before is dropped."""
    for row in _rows(table, concept, method, attack):
        if row["seed"] == str(table.seed):
            table.rows.remove(row)
    for strength, found in rows.items():
        table.add(found, concept, method, attack, strength)
    steps, tokens = (float(x) for x in (result.cost.steps, result.cost.tokens))
    cost = {"steps": Interval(steps, steps, steps, 1), "tokens": Interval(tokens, tokens, tokens, 1)}
    table.add(cost, concept, method, attack, "cost")


def _cell(lm, table, concept: str, method: str, attack: str, edit, setting: Setting, ceilings: dict) -> None:
    if attack not in ceilings and attack != "undoing":
        ceilings[attack] = run_attack(attack, lm, None, setting)
    result = ceilings[attack] if edit is None else run_attack(attack, lm, edit, setting)
    original = setting.score(lm)
    with torch.no_grad(), applied(edit, lm):
        erased = setting.score(lm)
    rows = summarise(attack, result, original, erased, setting, ceilings.get(attack))
    _write(table, concept, method, attack, rows, result)
    print(f"{concept} {method} {attack}: {_summary(rows)}", flush=True)


def _summary(rows: dict) -> str:
    return ", ".join(f"{step}: {found.get('share', found['value'])}" for step, found in rows.items())


# ---- methods of erasure -----------------------------------------------------------------------------------
class _Ladders:
    """Edits of rising strength per method; dictionaries are loaded (or trained) once."""

    def __init__(self):
        self.saes = None

    def __call__(self, lm: LanguageModel, concept: Concept, method: str) -> Iterable[WeightEdit]:
        if method == "pisces":
            self.saes = self.saes or dictionaries(lm)
            features = find_features(lm, self.saes, concept, n=40)
            return (directional_edit(lm, self.saes, features, c) for c in STRENGTHS)
        if method == "needle":
            late = range(int(0.5 * lm.n_layers), lm.n_layers)
            vectors = search(lm, concept.words, 40, layers=late)
            return (noise_edit(lm, vectors, c) for c in NOISES)
        if method in ERASERS:
            forget, keep = forget_and_keep(concept)
            return (finetuned_eraser(lm, forget, keep, EraserConfig(method, lr=lr)) for lr in LEARNING_RATES)
        raise ConceptLabError(f"Unknown method {method!r}; known are {', '.join(METHODS)}.")


def dictionaries(lm: LanguageModel) -> dict:
    """The shipped dictionaries of a model, or where there are none the live ones of the notebooks."""
    layers = shipped_layers(lm.name)
    if layers:
        return {layer: load_shipped(lm, layer) for layer in layers}
    profile = get_profile()
    rows = token_rows(lm, course_texts(), n_ctx=128, n_tokens=profile.sae_tokens)
    cfg = TrainConfig(d_sae=profile.sae_width, k=profile.sae_k, steps=profile.sae_steps)
    return live_dictionaries(lm, rows, profile.sae_layers, cfg)


def matched_edit(lm: LanguageModel, concept: Concept, ladder: Iterable[WeightEdit], drop: float) -> WeightEdit:
    """The edit whose loss of dev margin is closest to `drop` times the original's margin (known questions only)."""
    before = score_questions(lm, concept.dev)
    known = before.correct
    if not bool(known.any()):
        raise ConceptLabError(f"{lm.name} answers no dev question about {concept.title}, so there is nothing to erase.")
    wanted, best = drop * float(before.margin[known].mean()), None
    for edit in ladder:
        with edit.applied(lm):
            lost = float((before.margin - score_questions(lm, concept.dev).margin)[known].mean())
        miss = abs(lost - wanted)
        if best is None or miss < best[0]:
            best = (miss, edit)
    if best is None:
        raise ConceptLabError("The ladder of edits is empty, so there is none to choose.")
    return best[1]


def _edit(lm, concept: Concept, method: str, edits: dict, ladders: Callable, drop: float) -> WeightEdit:
    if method == "random":
        first = edits.get("pisces") or matched_edit(lm, concept, ladders(lm, concept, "pisces"), drop)
        edits["pisces"] = first
        return random_like(first)
    return matched_edit(lm, concept, ladders(lm, concept, method), drop)


# ---- the never-taught control -----------------------------------------------------------------------------
def _never_taught_cells(lm: LanguageModel, table: ResultTable, names: Sequence[str], budget: Budget) -> None:
    """`never_taught`: gain of the taught and erased copy under attack above that of a copy that never knew."""
    fiction = load_fiction()
    setting = setting_for(fiction, budget=budget)
    usable = [n for n in names if n not in (*MEASURES, "language", "logit_lens", "probability_delta", "patching")]
    missing = [n for n in usable if not _done(table, fiction.name, "never_taught", n)]
    if not missing:
        return
    taught, lessons = teach(lm, fiction.lessons()), fiction.lessons(setting.questions)
    keep = [*setting.unrelated[:20], *fact_texts(setting.facts)]
    cfg = EraserConfig("npo", steps=30, lr=1e-4)
    copies = erased_copies(lm, taught, lambda model: finetuned_eraser(model, lessons, keep, cfg))
    for attack in missing:
        found = never_taught(lm, taught, copies, functools.partial(_strike, attack, setting), setting.questions)
        cells = {}
        for i, strength in enumerate(found.attacked.labels or found.attacked.steps):
            scores = {"taught": found.taught, "erased": found.erased, "never": found.never}
            scores |= {"attacked": found.attacked.values[i], "never_attacked": found.never_attacked.values[i]}
            cells[strength] = {name: bootstrap(s.margin) for name, s in scores.items()}
            cells[strength]["above_control"] = found.above_control(at=i)
        _write(table, fiction.name, "never_taught", attack, cells, found.attacked)
        print(f"never taught, {attack}: {found.above_control()}", flush=True)


def _strike(attack: str, setting: Setting, lm: LanguageModel, edit: WeightEdit) -> AttackResult:
    return run_attack(attack, lm, edit, setting)
