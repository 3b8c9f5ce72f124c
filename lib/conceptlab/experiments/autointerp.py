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

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from ..autointerp import (
    EmbeddingJudge,
    EvidenceJudge,
    Label,
    LabelConfig,
    LabelJudge,
    Labelled,
    Labelling,
    ModelExplainer,
    ModelJudge,
    Units,
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
from ..core import Cell, ConceptLabError, Interval, Store, bootstrap, say, table_path
from ..data import Article, Harvest, harvest, label_texts, token_rows
from ..models import LanguageModel, fingerprint
from ..sae import N_CTX, SAE, load_shipped, shared_kind, shipped_layers

OWN = ("rule_based", "output_side", "ensemble", "shuffled")


CONTROLS = ("neurons", "random_directions", "random_sae")


ALL_LAYERS = "all"  # the budget of the rows over all layers


Values = dict[str, list[float]]  # metric -> one number per unit


def autointerp(
    lm: LanguageModel,
    path: Path | None = None,
    layers: Sequence[int] | None = None,
    n: int = 24,
    n_dear: int = 24,
    contexts_dear: int = 8,
    saes: Path | None = None,
    texts: Sequence[str] | None = None,
    cfg: LabelConfig | None = None,
    dear: LanguageModel | None = None,
    seed: int = 0,
    replace: bool = False,
) -> Path:
    """Fill the table at `path` (default: its place in data/results), cell by cell; see `Store` for interruptions.

    `n` features per layer, chosen by rate. A language model (`dear`, by default `lm` itself) explains and judges the
    first `n_dear` of the middle layer, on `contexts_dear` contexts of each side; so does the embedding judge, whose
    model (84 MB) is downloaded once. Every cell keeps its numbers of single units, which the pooled rows are made of.
    """
    cfg = dataclasses.replace(cfg or LabelConfig(), n=n, seed=seed)
    layers = [lm.check_layer(x) for x in (shipped_layers(lm.name, saes) if layers is None else layers)]
    if not layers:
        raise ConceptLabError(
            f"There is no dictionary of {lm.name}; train some with `train-sae --out data/saes/<model>`."
        )
    chosen, dear = label_texts() if texts is None else list(texts), dear or lm
    judges: list[LabelJudge] = [EvidenceJudge(), *_embedding(), ModelJudge(dear)]
    settings = {"layers": layers, "n": n, "n_dear": n_dear, "contexts_dear": contexts_dear, "labels": asdict(cfg)}
    with Store(
        path or table_path("autointerp", lm.name), experiment="autointerp", model=lm.name, fingerprint=lm.fingerprint(),
        settings=settings, fingerprints=_fingerprints(lm, dear, layers, saes, chosen), seed=seed,
        device=str(lm.device), replace=replace,
    ) as store:  # fmt: skip
        grid = {x: _grid(judges, x, x == layers[len(layers) // 2]) for x in layers}
        pooled = list(dict.fromkeys(c._replace(budget=ALL_LAYERS) for cells in grid.values() for c in cells))
        store.progress([*(cell for cells in grid.values() for cell in cells), *pooled])
        missing = {x: found for x, cells in grid.items() if (found := list(filter(store.missing, cells)))}
        if missing:
            kind = shared_kind({layer: load_shipped(lm, layer, saes) for layer in layers})
            data = harvest(lm, token_rows(lm, chosen, n_ctx=N_CTX), layers, kind=kind)
            articles = as_articles(chosen)
            keep_neurons(lm, data, dict.fromkeys(layers, control_neurons(lm, n, seed)))
        for layer, cells in missing.items():
            run = _Layer(lm, load_shipped(lm, layer, saes), data, articles, cfg, dear, n_dear, contexts_dear)
            for cell in cells:
                _add(store, cell, run.cell(cell.method, next(j for j in judges if j.name == cell.attack)))
        for cell in filter(store.missing, pooled):
            _add(store, cell, _pooled(store, cell, layers))
        return store.finish()


def _fingerprints(
    lm: LanguageModel, dear: LanguageModel, layers: Sequence[int], saes: Path | None, texts: Sequence[str]
) -> dict[str, str]:
    """What the numbers depend on beside the model: dictionaries, the dear model, texts."""
    found = {f"layer {x}": fingerprint(dict(load_shipped(lm, x, saes).named_parameters())) for x in layers}
    words = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    return found | {"dear": dear.fingerprint(), "texts": words}


def _add(store: Store, cell: Cell, values: Values) -> None:
    found = {metric: bootstrap(numbers, seed=store.seed) for metric, numbers in values.items() if numbers}
    found = {metric: x for metric, x in found.items() if x.bounded}  # one unit has no interval; the record keeps it
    store.add(cell, found or {"possible": Interval(0.0, 0.0, 0.0, 1)}, record=values)
    summary = ", ".join(f"{k} {v.value:.2f}" for k, v in found.items())
    say(f"layer {cell.budget} {cell.method}, {cell.attack} judge: {summary}")


def _pooled(store: Store, cell: Cell, layers: Sequence[int]) -> Values:
    """All units of the layers that have this cell."""
    found: Values = {}
    for layer in layers:
        for metric, numbers in (store.record(cell._replace(budget=layer)) or {}).items():
            found.setdefault(metric, []).extend(numbers)
    return found


def _embedding() -> list[EmbeddingJudge]:
    try:
        return [EmbeddingJudge(load_encoder())]
    except ConceptLabError as error:
        say(f"Without the embedding judge: {error}")
        return []


def _grid(judges: Sequence[LabelJudge], layer: int, middle: bool) -> list[Cell]:
    """Every cell of a layer: the rules judge all, the others the labels that are lines of text."""
    cells = [Cell(method=method, attack="evidence", budget=layer) for method in (*OWN, *CONTROLS)]
    if middle:
        cells += [Cell(method="local_llm", attack="evidence", budget=layer)]
        lines = ("ensemble", "shuffled", "local_llm")
        cells += [Cell(method=method, attack=j.name, budget=layer) for j in judges[1:] for method in lines]
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
        self.labelling = Labelling(lm, sae, data, articles, cfg)
        self.features = feature_units(lm, sae, self.labelling.firings, self.labelling.choose())
        self.explainer, self.n_dear, self.contexts_dear = ModelExplainer(dear), n_dear, contexts_dear
        self._labelled: dict[str, tuple[Units, Labelled]] = {}
        self._outputs: dict[str, dict[str, Values]] = {}
        self._lines: list[Label] = []

    def labelled(self, kind: str) -> tuple[Units, Labelled]:
        """Units of a kind with their labels."""
        if kind not in self._labelled:
            bench, units = self.labelling, self.features
            if kind in CONTROLS:
                units = control_units(bench.lm, bench.sae, bench.data, units, bench.cfg.seed, [kind])[kind]
            self._labelled[kind] = units, bench.label(units)
        return self._labelled[kind]

    def cell(self, method: str, judge: LabelJudge) -> Values:
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

    def _asked(self, judge: LabelJudge, labels: Sequence[Label], done: Labelled) -> Values:
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
            bench, table = self.labelling, self._labels(done)
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
