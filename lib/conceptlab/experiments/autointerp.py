"""How good are labels, by explainer and judge, on features and on their controls? One table for notebook 03.

A cell is one method on one layer (`budget`) under one judge (`attack`, the column for what a method is put through);
`budget` "all" pools the units of all layers. Methods `rule_based` (input side), `output_side`, `ensemble` and
`local_llm` label the same features; `neurons`, `random_directions` and `random_sae` are other units with ensemble
labels, firing as often as the features they are paired with; `shuffled` gives every feature the next one's ensemble
label. Intervals are over units. A random direction labelled by its own vocabulary projection does well in
`output_auroc`; the control of that metric is `output_auroc_random`, the same labels while random directions are
pushed as hard. Dear judges, and the labels that a language model writes, have the middle layer alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ..autointerp import (
    EmbeddingJudge,
    EvidenceJudge,
    Judge,
    Label,
    LabelConfig,
    Labelled,
    ModelExplainer,
    ModelJudge,
    Units,
    Workbench,
    as_articles,
    control_neurons,
    control_units,
    detect,
    detection,
    feature_units,
    fuzzing,
    keep_neurons,
    load_encoder,
    output_tables,
    score_label,
)
from ..core import ConceptLabError, atomic_path, bootstrap
from ..data import Article, Harvest, harvest, label_texts, token_rows
from ..models import LanguageModel
from ..sae import N_CTX, SAE, load_shipped, shipped_layers
from .table import ResultTable

OWN = ("rule_based", "output_side", "ensemble", "shuffled")


CONTROLS = ("neurons", "random_directions", "random_sae")


POOLED = "all"  # the budget of the rows over all layers


Values = dict[str, list[float]]  # metric -> one number per unit


def autointerp(
    lm: LanguageModel,
    table: ResultTable,
    layers: Sequence[int] | None = None,
    n: int = 24,
    n_dear: int = 24,
    contexts_dear: int = 8,
    saes: Path | None = None,
    texts: Sequence[str] | None = None,
    cfg: LabelConfig | None = None,
    dear: LanguageModel | None = None,
) -> None:
    """Fill the table, cell by cell; a run that was interrupted goes on with what is missing.

    `n` features per layer, chosen by rate. A language model (`dear`, by default `lm` itself) explains and judges the
    first `n_dear` of the middle layer, on `contexts_dear` contexts of each side; so does the embedding judge, whose
    model (84 MB) is downloaded once.
    """
    cfg = replace(cfg or LabelConfig(), n=n, seed=table.seed)
    layers = [lm.check_layer(x) for x in (shipped_layers(lm.name, saes) if layers is None else layers)]
    if not layers:
        raise ConceptLabError(
            f"There is no dictionary of {lm.name}; train some with `train-sae --out data/saes/<model>`."
        )
    table.begin(layers=layers, n=n, n_dear=n_dear, contexts_dear=contexts_dear, labels=asdict(cfg))
    judges: list[Judge] = [EvidenceJudge(), *_embedding(), ModelJudge(dear or lm)]
    grids = {layer: _grid(judges, layer == layers[len(layers) // 2]) for layer in layers}
    kept = _Kept(table.partial.with_suffix(".json"))
    missing = {x: [c for c in grids[x] if table.missing("", *c, budget=x) or not kept.has(x, *c)] for x in layers}
    cells = list(dict.fromkeys(cell for grid in grids.values() for cell in grid))
    if all(not table.missing("", *cell, budget=POOLED) for cell in cells):
        missing = {}
    if any(missing.values()):
        chosen = label_texts() if texts is None else list(texts)
        data, articles = harvest(lm, token_rows(lm, chosen, n_ctx=N_CTX), layers), as_articles(chosen)
        keep_neurons(lm, data, dict.fromkeys(layers, control_neurons(lm, n, table.seed)))
    for layer in missing:
        if missing[layer]:
            run = _Layer(lm, load_shipped(lm, layer, saes), data, articles, cfg, dear or lm, n_dear, contexts_dear)
            for method, judge in missing[layer]:
                values = run.cell(method, next(j for j in judges if j.name == judge))
                kept.add(values, layer, method, judge)
                _add(table, values, method, judge, layer)
    for method, judge in cells:
        if table.missing("", method, judge, budget=POOLED):
            _add(table, kept.pooled(layers, method, judge), method, judge, POOLED)
    table.close(layers=layers, n=n, n_dear=n_dear, contexts_dear=contexts_dear, judges=[j.name for j in judges])
    kept.path.unlink(missing_ok=True)


def _add(table: ResultTable, values: Values, method: str, judge: str, budget: int | str) -> None:
    found = {metric: bootstrap(numbers, seed=table.seed) for metric, numbers in values.items() if numbers}
    if table.missing("", method, judge, budget=budget):
        table.add(found, method=method, attack=judge, budget=budget)
    summary = ", ".join(f"{k} {v.value:.2f}" for k, v in found.items())
    print(f"layer {budget} {method}, {judge} judge: {summary}", flush=True)


class _Kept:
    """The numbers of single units, on disk while the experiment runs: pooled rows need them after an interruption."""

    def __init__(self, path: Path):
        self.path = path
        self._values: dict[str, Values] = json.loads(path.read_text()) if path.exists() else {}

    def has(self, *cell: int | str) -> bool:
        return " ".join(map(str, cell)) in self._values

    def add(self, values: Values, *cell: int | str) -> None:
        self._values[" ".join(map(str, cell))] = values
        with atomic_path(self.path) as temporary:
            temporary.write_text(json.dumps(self._values))

    def pooled(self, layers: Sequence[int], method: str, judge: str) -> Values:
        """All units of the layers that have this cell."""
        found: Values = {}
        for layer in layers:
            for metric, numbers in self._values.get(f"{layer} {method} {judge}", {}).items():
                found.setdefault(metric, []).extend(numbers)
        return found


def _embedding() -> list[EmbeddingJudge]:
    try:
        return [EmbeddingJudge(load_encoder())]
    except ConceptLabError as error:
        print(f"Without the embedding judge: {error}", flush=True)
        return []


def _grid(judges: Sequence[Judge], middle: bool) -> list[tuple[str, str]]:
    """(method, judge) of every cell of a layer: the rules judge all, the others the labels that are lines of text."""
    cells = [(method, "evidence") for method in (*OWN, *CONTROLS)]
    if middle:
        cells += [("local_llm", "evidence")]
        cells += [(method, j.name) for j in judges[1:] for method in ("ensemble", "shuffled", "local_llm")]
    return cells


class _Layer:
    """One layer: units and labels, made when the first cell needs them."""

    def __init__(
        self,
        lm: LanguageModel,
        sae: SAE,
        data: Harvest,
        articles: Sequence[Article],
        cfg: LabelConfig,
        dear: LanguageModel,
        n_dear: int,
        contexts_dear: int,
    ):
        self.bench = Workbench(lm, sae, data, articles, cfg)
        self.features = feature_units(lm, sae, self.bench.firings, self.bench.choose())
        self.explainer, self.n_dear, self.contexts_dear = ModelExplainer(dear), n_dear, contexts_dear
        self._labelled: dict[str, tuple[Units, Labelled]] = {}
        self._outputs: dict[str, dict[str, Values]] = {}
        self._lines: list[Label] = []

    def labelled(self, kind: str) -> tuple[Units, Labelled]:
        """Units of a kind with their labels."""
        if kind not in self._labelled:
            bench, units = self.bench, self.features
            if kind in CONTROLS:
                units = control_units(bench.lm, bench.sae, bench.data, units, bench.cfg.seed, [kind])[kind]
            self._labelled[kind] = units, bench.label(units)
        return self._labelled[kind]

    def cell(self, method: str, judge: Judge) -> Values:
        """Metric -> one number per unit."""
        kind = method if method in CONTROLS else "features"
        units, done = self.labelled(kind)
        labels = self._labels(done)[method] if method != "local_llm" else self._written(done)
        if not isinstance(judge, EvidenceJudge):
            return self._asked(judge, labels, done)
        seen, new = done.seen[: len(labels)], done.new[: len(labels)]
        found = detect(judge, labels, seen, new, n_resamples=200)
        values: Values = {
            "detection_auroc": [d.auroc.value for d in found],
            "hard_auroc": [d.hard.value for d in found if d.hard],
            "balanced_accuracy": [d.balanced_accuracy.value for d in found],
            "f1": [d.f1.value for d in found],
        }
        for label, examples in zip(labels, new, strict=True):
            for metric, interval in score_label(judge, label, examples, 50).items():
                values.setdefault(metric, []).append(interval.value)
        return values | ({} if method == "local_llm" else self._output(kind, units, done)[method])

    def _labels(self, done: Labelled) -> dict[str, list[Label]]:
        both = done.ensemble
        own = {"rule_based": done.reads, "output_side": done.writes, "ensemble": both}
        return own | {"shuffled": [*both[1:], *both[:1]]} | dict.fromkeys(CONTROLS, both)

    def _written(self, done: Labelled) -> list[Label]:
        """The lines of the language model."""
        self._lines = self._lines or [self.explainer.explain(examples) for examples in done.seen[: self.n_dear]]
        return self._lines

    def _asked(self, judge: Judge, labels: Sequence[Label], done: Labelled) -> Values:
        """What a judge that is dear is asked: detection and fuzzing, on few contexts."""
        values: Values = {"detection_auroc": [], "fuzzing_auroc": []}
        for label, examples in zip(labels[: self.n_dear], done.new[: self.n_dear], strict=True):
            n = min(self.contexts_dear, len(examples.spread), len(examples.silent))
            values["detection_auroc"].append(detection(judge, label, examples, n, 50).value)
            try:
                values["fuzzing_auroc"].append(fuzzing(judge, label, examples, n, 50).value)
            except ConceptLabError:  # it fires on every token of these contexts
                continue
        return values

    def _output(self, kind: str, units: Units, done: Labelled) -> dict[str, Values]:
        """Method -> what needs no judge; for the features also while random directions are pushed, same labels."""
        if kind not in self._outputs:
            bench, table = self.bench, self._labels(done)
            methods = [kind] if kind in CONTROLS else list(OWN)
            own = units.directions[[e.unit for e in done.new]]
            noise = torch.randn(own.shape, generator=torch.Generator().manual_seed(bench.cfg.seed)).to(own)
            found: dict[str, Values] = {method: {} for method in methods}
            pushes = {"output_auroc": own} | ({} if kind in CONTROLS else {"output_auroc_random": noise})
            for metric, directions in pushes.items():
                lists = [table[method] for method in methods]
                scores = output_tables(bench.lm, bench.layer, directions, lists, n_resamples=50)
                for method, column in zip(methods, scores, strict=True):
                    found[method][metric] = [x.value for x in column if x]
            self._outputs[kind] = found
        return self._outputs[kind]
