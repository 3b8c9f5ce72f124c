"""The lab: every method of erasure on every concept, fitted, scored and attacked, in one table.

For each concept and method one pass: *fit* (strength chosen on dev, the edit saved), *score* (once on test), *curve*
(the edit weaker and stronger), *attack* (that very edit). `data/results/lab_<model>.csv`: the attack "fit" holds what
was chosen, no attack the scores on test, "curve" what each strength takes, every other attack the numbers under it.
Records hold numbers per question; small edits lie in the table's folder, large ones (of fine-tuning) and methods that
work at run time are fitted again from the recorded setting when they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..attacks import Budget
from ..core import POOLED, Cell, ConceptLabError, Contents, Interval, NotPossible, Store, say, table_path
from ..data import Concept, list_concepts, load_concept
from ..edits import Intervention, WeightEdit
from ..erasure import (
    Dictionaries,
    Fitted,
    Shared,
    SharedConfig,
    get_method,
    methods,
    needs_dictionaries,
    shipped_dictionaries,
)
from ..models import LanguageModel, fingerprint
from ..sae import shipped_layers
from .attacking import ATTACKS, BUDGET, COST, Attacking, budget_for
from .curves import CURVE, CurveConfig, curve_point, known_sets, point_metrics
from .pooled import DIRECT, pooled
from .scoring import FinalConfig, General, Scoring, number

STAGES = ("fit", "score", "curve", "attack")
FIT = "fit"  # the attack of the cells that say what was chosen
ORIGINAL = "original"  # the method of the cells that say what the model knows, and does under attack, before any edit
LARGEST = 400_000  # numbers in an edit that is kept beside the table
# What is attacked and gets a strength curve: of each family the methods that its papers compare, and two controls
ATTACKED = (
    ORIGINAL, "pisces", "pisces+words_both", "words_both", "other_features", "permuted_neurons", "random_norm",
    "zeroed_vectors_matched", "gradient_ascent", "gradient_difference", "npo", "simnpo", "dpo", "flat", "ihl",
    "task_vector", "rmu", "ssd", "elm", "alphaedit", "rocr", "read_side+pisces", "eco", "in_context_refusal",
)  # fmt: skip
ATTACKED_CONCEPTS = ("japan", "chemical_elements", "ancient_rome", "astronomy", "world_war_ii", "greek_culture")


@dataclass(frozen=True)
class LabConfig:
    """Everything that the numbers depend on, besides weights, dictionaries and questions."""

    shared: SharedConfig = SharedConfig()
    test: FinalConfig = FinalConfig()
    budget: Budget = BUDGET
    n_attacked: int = 14  # known test questions that judge the attacks
    split: str = "test"
    curve: CurveConfig = CurveConfig()


def lab(
    lm: LanguageModel,
    path: Path | None = None,
    concepts: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    stages: Sequence[str] = STAGES,
    attacks: Sequence[str] = ATTACKS,
    attacked: Sequence[str] = ATTACKED,
    cfg: LabConfig | None = None,
    saes: Dictionaries | None = None,
    seed: int = 0,
    replace: bool = False,
    dictionary_seed: int = 0,
) -> Path:
    """Method x concept, one pass; cells that are there are not computed again.

    `methods`: default all; `stages`: of STAGES, in order (what a later one needs of an earlier one is made in any
    case); `attacked`: the methods that meet `attacks` and get a strength curve. Concepts are all unless given; attacked
    are those of ATTACKED_CONCEPTS, or those given. `dictionary_seed`: take the dictionaries that `make saes SEED=...`
    has trained; rows then carry that seed, and `seed` still draws texts and controls. Only NotPossible is written as
    a result (`possible` 0). Raises ConceptLabError before the work for unknown names and for a table that was made
    otherwise.
    """
    cfg = cfg or LabConfig(budget=budget_for(lm, BUDGET))
    given, names = concepts is not None, _names(methods)
    concepts = list_concepts() if concepts is None else list(concepts)
    if unknown := [stage for stage in stages if stage not in STAGES]:
        raise ConceptLabError(f"Unknown stage {unknown[0]!r}; known are {', '.join(STAGES)}.")
    loaded = [load_concept(name) for name in concepts]
    if saes is None:
        # also where no method asked for needs them: a table holds others later, and says whose features it measures
        wanted = any(map(needs_dictionaries, names)) or shipped_layers(lm.name)
        saes = shipped_dictionaries(lm, seed=dictionary_seed) if wanted else {}
    prints = {f"layer {layer}": fingerprint(dict(saes[layer].state_dict())) for layer in sorted(saes)}
    with Store(
        path or table_path("lab", lm.name), experiment="lab", model=lm.name, fingerprint=lm.fingerprint(),
        settings=asdict(cfg), fingerprints=prints,
        seed=dictionary_seed or seed, device=str(lm.device), replace=replace,
    ) as store:  # fmt: skip
        store.progress(_planned(loaded, names, stages, attacks, attacked, given, cfg.curve))
        general = General(lm, cfg.shared, cfg.test)
        for concept in loaded:
            meets = given or concept.name in ATTACKED_CONCEPTS
            Bench(lm, concept, store, cfg, saes, general, attacks, seed).run(names, stages, attacked if meets else ())
        if "attack" in stages:
            Attacking(lm, store, cfg.budget, attacks).fiction()
        if pool := over_concepts(store.record, store.rows):
            store.add_all(pool)
        return store.finish()


def _names(wanted: Sequence[str] | None) -> list[str]:
    return list(methods()) if wanted is None else [get_method(name).name for name in wanted]


def _planned(
    concepts: Sequence[Concept],
    names: Sequence[str],
    stages: Sequence[str],
    attacks: Sequence[str],
    attacked: Sequence[str],
    given: bool,
    curve: CurveConfig,
) -> list[Cell]:
    """The cells that say when a piece of the work is done, for the estimate of the time that is left."""
    cells = []
    for concept in concepts:
        cells += [Cell(concept.name, ORIGINAL)] if "score" in stages else []
        cells += [Cell(concept.name, m, FIT) for m in names if FIT in stages or "score" in stages]
        cells += [Cell(concept.name, m) for m in names if "score" in stages]
        those = [m for m in (ORIGINAL, *names) if m in attacked and (given or concept.name in ATTACKED_CONCEPTS)]
        if "curve" in stages:
            cells += [Cell(concept.name, m, CURVE, f"{x:g}") for m in those if m != ORIGINAL for x in curve.scales]
        if "attack" in stages:
            cells += [Cell(concept.name, m, a, COST) for m in those for a in (DIRECT, *attacks)]
    return cells


class Bench:
    """One concept on the bench: its methods fitted, scored and attacked, one after the other."""

    def __init__(
        self,
        lm: LanguageModel,
        concept: Concept,
        store: Store,
        cfg: LabConfig,
        saes: Dictionaries,
        general: General,
        attacks: Sequence[str] = ATTACKS,
        seed: int = 0,
    ):
        self.lm, self.concept, self.store, self.cfg, self.general = lm, concept, store, cfg, general
        self.shared = Shared(lm, concept, saes, cfg.shared, seed, general=general.dev)
        self.scoring = Scoring(lm, concept, self.shared, cfg.test, general)
        self.attacking = Attacking(lm, store, cfg.budget, attacks, concept, cfg.n_attacked, cfg.split)

    def run(self, names: Sequence[str], stages: Sequence[str], attacked: Sequence[str]) -> None:
        """All stages of all methods; `attacked`: those that have a curve and are attacked as well."""
        name = self.concept.name
        if "score" in stages:
            self._cell(Cell(name, ORIGINAL), self.scoring.known)
        if ORIGINAL in attacked and "attack" in stages:
            self.attacking.method(ORIGINAL, lambda: None)
        for method in names:
            if "score" in stages or FIT in stages:
                self._cell(Cell(name, method, FIT), partial(self._chosen, method))
            if "score" in stages:
                self._cell(Cell(name, method), partial(self._scores, method))
            if method in attacked and "curve" in stages:
                for scale in self.cfg.curve.scales:
                    self._cell(Cell(name, method, CURVE, f"{scale:g}"), partial(self._point, method, scale))
            if method in attacked and "attack" in stages:
                self.attacking.method(method, partial(self.edit, method))

    def _scores(self, method: str) -> dict[str, Interval]:
        return self.scoring.measure(method, self.edit(method))

    def _point(self, method: str, scale: float) -> dict[str, Any]:
        """The edit at another strength."""
        cfg, edit = self.cfg.curve, self.edit(method)
        asked = known_sets(self.scoring.asked, cfg.n_questions)
        setting = self.attacking.setting if cfg.attacks else None
        point = curve_point(self.lm, edit, scale, asked, setting, cfg.attacks)
        return point_metrics(point) | {"possible": number(1.0), "record": asdict(point)}

    def _cell(self, cell: Cell, make: Callable[[], dict[str, Any]]) -> None:
        if not self.store.missing(cell):
            return
        try:
            found = make()
        except NotPossible as reason:
            say(f"{cell.concept} {cell.method}: {reason}")
            return self.store.add(cell, {"possible": number(0.0)}, record={"not possible": str(reason)})
        record = found.pop("record", None)
        self.store.add(cell, found, record=record)
        axes = (f"{k}_known" for k in ("efficacy", "specificity", "coherence"))
        say(f"{cell.concept} {cell.method} {cell.attack}: " + ", ".join(f"{k} {found[k]}" for k in axes if k in found))

    # ---- fitting --------------------------------------------------------------------------------------------
    def _chosen(self, method: str) -> dict:
        """Choose the strength, keep the edit, and say what was chosen."""
        fitted = self.shared.chosen(method)
        edit = fitted.intervention
        found: dict[str, Any] = {
            "possible": number(1.0),
            "passed_gates": number(float(fitted.passed)),
            "tried": number(fitted.tried),
        }
        found |= {f"setting_{k}": number(v) for k, v in fitted.setting.items()}
        if isinstance(edit, WeightEdit):
            found |= {name: number(value) for name, value in edit.report(self.lm).items()}
        self._save(method, edit)
        found["record"] = {"setting": fitted.setting, "config": asdict(fitted.config)}
        return found

    def edit(self, method: str) -> Intervention:
        """The edit of the fit cell: saved, or fitted again at the recorded setting."""
        cell = Cell(self.concept.name, method, FIT)
        self._cell(cell, lambda: self._chosen(method))
        record = self.store.record(cell)
        if "not possible" in record:
            raise NotPossible(record["not possible"])
        if method not in self.shared.kept:
            known = get_method(method)
            for need in known.needs:
                if need in methods():
                    self.edit(need)  # what it starts from, as it was chosen
            config = known.at(record["setting"])
            there = self._file(method).exists()
            edit = (
                WeightEdit.load(self._file(method)) if there else known.fit(self.lm, self.concept, config, self.shared)
            )
            self.shared.keep_chosen(Fitted(method, config, edit, record["setting"]))
            self._save(method, edit)
        return self.shared.chosen(method).intervention

    def _save(self, method: str, edit: Intervention) -> None:
        """Keep the edit beside the table, if it is small."""
        if isinstance(edit, WeightEdit) and edit_size(edit) <= LARGEST and not self._file(method).exists():
            edit.save(self._file(method))

    def _file(self, method: str) -> Path:
        return self.store.folder / f"{self.concept.name}_{method}.safetensors"


def over_concepts(
    record: Callable[[Cell], dict | None], rows: Sequence[dict[str, str]]
) -> dict[Cell, dict[str, Interval]]:
    """Cells over all attacked concepts together (concept "all")."""
    done = [row for row in rows if row["budget"] == COST and row["concept"] != POOLED and row["metric"] == "steps"]
    concepts = sorted({row["concept"] for row in done if row["attack"] == DIRECT})
    found = {}
    for method, attack in dict.fromkeys((row["method"], row["attack"]) for row in done):
        for label, metrics in pooled(record, concepts, method, attack).items():
            found[Cell(POOLED, method, attack, label)] = metrics
    return found


def summarise_lab(merged: Contents) -> dict[Cell, dict[str, Interval]]:
    """`over_concepts` of a table that was put together from several."""
    seed = next((row["seed"] for row in merged.rows), "0")

    def record(cell: Cell) -> dict | None:
        return merged.records.get((cell.concept, cell.method, cell.attack, str(cell.budget), seed))

    return over_concepts(record, merged.rows)


def edit_size(edit: WeightEdit) -> int:
    """Numbers that describe an edit."""
    return sum(x.numel() for change in edit.changes.values() for x in vars(change).values())


def shipped_edit(lm: LanguageModel, concept: Concept, method: str = "pisces") -> WeightEdit:
    """The edit of the lab's table in data/results; fitted here, in minutes, where none is kept."""
    path = table_path("lab", lm.name).with_suffix("") / f"{concept.name}_{method}.safetensors"
    if path.exists():
        return WeightEdit.load(path)
    return Shared(lm, concept).chosen(method).edit
