"""How precisely can a concept be erased? Every concept and method, strengths chosen on dev, scored once on test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import torch

from ..cache import ConceptLabError
from ..concepts import list_concepts, load_concept
from ..erasure import METHODS, Erasure, ErasureConfig, shipped_dictionaries
from ..evaluation import (
    Interval,
    Scorecard,
    bootstrap,
    compare,
    residue,
    score_forms,
    scorecard,
    trace,
    write_energy,
)
from ..models import LanguageModel
from ..pisces import Dictionaries
from .table import ResultTable

COMPARED = tuple(method for method in METHODS if method != "directional")


@dataclass(frozen=True)
class FinalConfig:
    """What is measured on the test questions."""

    n_questions: int | None = None  # per set; None: all
    n_texts: int = 16  # held-out passages
    n_vectors: int = 20  # concept vectors whose residue is measured
    forms: tuple[str, ...] = ("cloze", "clue")  # further forms in which the target facts are asked
    writing: bool = True  # repetition and instructions count in the coherence


def erasure(
    lm: LanguageModel,
    table: ResultTable,
    concepts: Sequence[str] | None = None,
    methods: Sequence[str] = COMPARED,
    saes: Dictionaries | None = None,
    cfg: ErasureConfig | None = None,
    test: FinalConfig = FinalConfig(),
) -> None:
    """One cell per concept and method; `saes`: the shipped dictionaries unless given.

    Metrics ending in `_known` count only questions that the original model answers rightly. `possible` is 0 where a
    method could not be applied; then the cell has no other metric.
    """
    cfg = cfg or ErasureConfig()
    concepts = list_concepts() if concepts is None else list(concepts)
    saes = shipped_dictionaries(lm) if saes is None else saes
    for name in concepts:
        wanted = [method for method in methods if table.missing(name, method)]
        work = Measured(Erasure(lm, saes, load_concept(name), cfg, table.seed), test) if wanted else None
        for method in wanted:
            found = work.measure(method)
            table.add(found, name, method)
            shown = ", ".join(f"{k} {found[k]}" for k in ("efficacy", "specificity", "coherence") if k in found)
            print(f"{name} {method}: {shown or 'not possible'}", flush=True)
    settings = json.loads(json.dumps({"chosen_on_dev": asdict(cfg), "test": asdict(test)}))
    table.close(concepts=concepts, methods=list(methods), layers=sorted(saes), **settings)


class Measured:
    """One concept's erasures, each compared with the original model."""

    def __init__(self, work: Erasure, cfg: FinalConfig):
        self.work, self.cfg = work, cfg

    def card(self) -> Scorecard:
        lm, cfg = self.work.lm, self.cfg
        return scorecard(lm, self.work.concept, "test", cfg.n_questions, cfg.n_texts, writing=cfg.writing)

    def state(self) -> dict:
        """Everything that is compared, of the model as it is now."""
        places = [(v.layer, v.neuron, v.sign) for v in self.work.vectors[: self.cfg.n_vectors]]
        return {
            "card": self.card(),
            "forms": score_forms(self.work.lm, self.work.concept.test[: self.cfg.n_questions], self.cfg.forms),
            "trace": trace(self.work.lm, places),
            "energy": self._energy(),
        }

    def _energy(self) -> torch.Tensor:
        """Write energy of every edited feature, by layer; empty where there are none."""
        parts = [torch.zeros(0)]
        for layer in sorted({f.layer for f in self.work.features}):
            chosen = [f for f in self.work.features if f.layer == layer]
            d = torch.stack([f.sign * self.work.saes[layer].W_dec[f.index].detach() for f in chosen])
            parts.append(write_energy(self.work.lm, layer, d, self.work.signs[layer]).float())
        return torch.cat(parts)

    @cached_property
    def base(self) -> dict:
        return self.state()

    def measure(self, method: str) -> dict[str, Interval]:
        """All metrics of one method."""
        base = self.base
        try:
            edit = self.work.edit(method)
        except ConceptLabError as error:
            print(f"{self.work.concept.name} {method}: {error}", flush=True)
            return {"possible": _number(0.0)}
        with edit.applied(self.work.lm):
            after = self.state()
        found = {"possible": _number(1.0)} | _card_metrics(base["card"], after["card"], self.work.seed)
        for form, before in base["forms"].items():
            pair = [Scorecard(self.work.concept.name, "test", {"target": s}) for s in (before, after["forms"][form])]
            found[f"left_{form}"] = compare(*pair, seed=self.work.seed).changes["target"].relative
        left = residue(base["trace"], after["trace"])
        found |= {f"residue_{name}": value for name, value in vars(left).items()}
        energy = after["energy"] / base["energy"]
        if len(energy[energy.isfinite()]):
            found["energy_left"] = bootstrap(energy[energy.isfinite()])
        found |= {name: _number(value) for name, value in edit.report(self.work.lm).items()}
        return found | {f"setting_{k}": _number(v) for k, v in self.work.settings.get(method, {}).items()}


def _card_metrics(base: Scorecard, after: Scorecard, seed: int) -> dict[str, Interval]:
    """Axes of the scorecard over all questions and over the known ones; accuracies; changes in nats."""
    found: dict[str, Interval] = {}
    for ending, known in (("", False), ("_known", True)):
        if known and not all(bool(s.correct.any()) for s in base.scores.values()):
            continue  # the original knows nothing of one of the sets
        result = compare(base, after, seed=seed, known=known)
        for axis in ("efficacy", "specificity", "coherence", "overall"):
            found[axis + ending] = getattr(result, axis)
        for name, change in result.changes.items():
            found[f"left_{name}{ending}"] = change.relative
            if not known:
                found[f"gold_{name}"], found[f"margin_{name}"] = change.gold, change.margin
        if not known:
            found |= {f"coherence_{name}": value for name, value in result.parts.items()}
        for name, scores in base.scores.items():
            keep = scores.correct if known else torch.ones_like(scores.correct)
            for when, state in (("before", scores), ("after", after.scores[name])):
                found[f"accuracy_{name}_{when}{ending}"] = bootstrap(state.correct[keep].double(), seed=seed)
    return found


def _number(value: float) -> Interval:
    return Interval(value, value, value, 1)
