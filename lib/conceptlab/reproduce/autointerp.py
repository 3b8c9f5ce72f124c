"""How good are labels, by explainer and judge, on features and on their controls? One table for notebook 03.

A cell is one method on one layer (`budget`) under one judge (`attack`, the column for what a method is put through).
Methods `rule_based` (input side), `output_side`, `ensemble` and `local_llm` label the same features; `neurons`,
`random_directions` and `random_sae` are other units with ensemble labels, firing as often as the features they are
paired with; `shuffled` gives every feature the next one's ensemble label. Intervals are over units. A random direction
labelled by its own vocabulary projection does well in `output_auroc`; the control of that metric is
`output_auroc_random`, the same labels while random directions are pushed as hard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..activations import Harvest, harvest
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
    control_units,
    detect,
    feature_units,
    first_contexts,
    label_texts,
    load_encoder,
    output_scores,
    score_label,
)
from ..cache import ConceptLabError
from ..evaluation import bootstrap
from ..evaluation.statistics import Interval
from ..models import LanguageModel
from ..sae import SAE, load_shipped, shipped_layers
from ..sae.shipped import N_CTX
from ..text import Article, token_rows
from .table import ResultTable

OWN = ("rule_based", "output_side", "ensemble", "shuffled")
CONTROLS = ("neurons", "random_directions", "random_sae")
FEW = {"fuzzing_auroc": 10, "simulation_r": 2, "intruder_accuracy": 2}  # contexts and line-ups per unit, dear judges


def autointerp(
    lm: LanguageModel,
    table: ResultTable,
    layers: Sequence[int] | None = None,
    n: int = 60,
    n_dear: int = 10,
    contexts_dear: int = 8,
    saes: Path | None = None,
    texts: Sequence[str] | None = None,
    cfg: LabelConfig | None = None,
    dear: LanguageModel | None = None,
) -> None:
    """Fill the table, cell by cell; a run that was interrupted goes on with what is missing.

    `n` features per layer, chosen by rate. A language model (`dear`, by default `lm` itself) explains the first
    `n_dear` of them. It judges labels of these in the middle layer alone, and the embedding judge, where its package
    is, in every layer, on `contexts_dear` contexts of each side.
    """
    cfg = replace(cfg or LabelConfig(), n=n, seed=table.seed)
    layers = [lm.check_layer(x) for x in (shipped_layers(lm.name, saes) if layers is None else layers)]
    if not layers:
        raise ConceptLabError(f"There is no dictionary of {lm.name}; build them with `make saes`.")
    judges: list[Judge] = [EvidenceJudge(), *_embedding(), ModelJudge(dear or lm)]
    grids = {layer: _grid(judges, layer == layers[len(layers) // 2]) for layer in layers}
    missing = {layer: [cell for cell in grids[layer] if table.missing("", *cell, budget=layer)] for layer in layers}
    if any(missing.values()):
        chosen, articles = label_texts(cfg) if texts is None else (list(texts), as_articles(texts))
        data = harvest(lm, token_rows(lm, chosen, n_ctx=N_CTX), layers)
    for layer in layers:
        if missing[layer]:
            run = _Layer(lm, load_shipped(lm, layer, saes), data, articles, cfg, dear or lm, n_dear, contexts_dear)
            for method, judge in missing[layer]:
                found = run.cell(method, next(j for j in judges if j.name == judge))
                table.add(found, method=method, attack=judge, budget=layer)
                summary = ", ".join(f"{k} {v.value:.2f}" for k, v in found.items())
                print(f"layer {layer} {method}, {judge} judge: {summary}", flush=True)
    table.close(layers=layers, n=n, n_dear=n_dear, contexts_dear=contexts_dear, judges=[j.name for j in judges])


def _embedding() -> list[EmbeddingJudge]:
    try:
        return [EmbeddingJudge(load_encoder())]
    except ConceptLabError as error:
        print(f"Without the embedding judge: {error}", flush=True)
        return []


def _grid(judges: Sequence[Judge], with_model: bool) -> list[tuple[str, str]]:
    """(method, judge) of every cell of a layer: the rules judge all, the others the labels that are lines of text."""
    cells = [(method, "evidence") for method in (*OWN, *CONTROLS, "local_llm")]
    others = [j.name for j in judges if isinstance(j, EmbeddingJudge) or (with_model and isinstance(j, ModelJudge))]
    return cells + [(method, judge) for judge in others for method in ("ensemble", "shuffled", "local_llm")]


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
        self._lines: list[Label] = []

    def labelled(self, kind: str) -> tuple[Units, Labelled]:
        """Units of a kind with their labels."""
        if kind not in self._labelled:
            bench, units = self.bench, self.features
            if kind in CONTROLS:
                units = control_units(bench.lm, bench.sae, bench.data, units, bench.cfg.seed, [kind])[kind]
            self._labelled[kind] = units, bench.label(units)
        return self._labelled[kind]

    def cell(self, method: str, judge: Judge) -> dict[str, Interval]:
        """Metric -> mean over units, with its interval."""
        units, done = self.labelled(method if method in CONTROLS else "features")
        own = {"rule_based": done.reads, "output_side": done.writes}
        labels, seen, new, sizes = own.get(method, done.ensemble), done.seen, done.new, {}
        if method == "shuffled":
            labels = [*labels[1:], *labels[:1]]
        if method == "local_llm":
            self._lines = self._lines or [self.explainer.explain(e) for e in seen[: self.n_dear]]
            labels = self._lines
        if method == "local_llm" or judge.name != "evidence":  # the same units for every judge that is dear
            labels, seen, new = (side[: self.n_dear] for side in (labels, seen, new))
        if judge.name != "evidence":
            seen, new = ([first_contexts(e, self.contexts_dear) for e in side] for side in (seen, new))
            sizes = FEW
        shuffles = 1 if isinstance(judge, ModelJudge) else 20
        found = detect(judge, labels, seen, new, n_shuffles=shuffles, n_resamples=200)
        values: dict[str, list[float]] = {
            "detection_auroc": [d.auroc.value for d in found],
            "hard_auroc": [d.hard.value for d in found if d.hard],
            "balanced_accuracy": [d.balanced_accuracy.value for d in found],
            "f1": [d.f1.value for d in found],
        }
        for label, examples in zip(labels, new, strict=True):
            for metric, interval in score_label(judge, label, examples, 50, **sizes).items():
                values.setdefault(metric, []).append(interval.value)
        if judge.name == "evidence":
            values |= self._output(units.directions[[e.unit for e in new]], labels)
        return {metric: bootstrap(numbers, seed=self.bench.cfg.seed) for metric, numbers in values.items() if numbers}

    def _output(self, directions: Tensor, labels: Sequence[Label]) -> dict[str, list[float]]:
        """What the output side needs no judge for; the control pushes random directions as hard, same labels."""
        noise = torch.randn(directions.shape, generator=torch.Generator().manual_seed(self.bench.cfg.seed))
        found = {}
        for metric, pushed in (("output_auroc", directions), ("output_auroc_random", noise.to(directions))):
            scores = output_scores(self.bench.lm, self.bench.layer, pushed, labels, n_resamples=50)
            found[metric] = [x.value for x in scores if x]
        return found
