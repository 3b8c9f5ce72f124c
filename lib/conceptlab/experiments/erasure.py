"""How precisely can a concept be erased? Every concept and method, strengths chosen on dev, scored once on test."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import torch

from ..core import ConceptLabError, Interval, bootstrap, paired_bootstrap
from ..data import general_questions, list_concepts, load_concept, mmlu_items
from ..erasure import METHODS, Dictionaries, Erasure, ErasureConfig, rows_for, shipped_dictionaries
from ..evaluation import (
    Asked,
    Behaviour,
    QuestionScores,
    Scorecard,
    ask,
    behaviour,
    compare,
    compare_writing,
    concept_questions,
    residue,
    score_forms,
    score_questions,
    score_sets,
    trace,
    write_energy,
)
from ..models import LanguageModel
from .table import ResultTable

COMPARED = tuple(method for method in METHODS if method != "directional")


MMLU_LENGTH = 250


ROWS = 5  # per feature, whose residue is measured


ORIGINAL = "original"  # the method of the rows that say what the model knows before any edit


@dataclass(frozen=True)
class FinalConfig:
    """What is measured on the test questions."""

    n_target: int | None = 40  # questions on the concept; None: all
    n_spared: int | None = 24  # questions on the neighbour, and general ones
    n_texts: int = 6  # held-out passages
    n_vectors: int = 20  # concept vectors whose residue is measured
    forms: tuple[str, ...] = ("cloze", "clue")  # further forms in which known target facts are asked
    forms_of: tuple[str, ...] = (  # after these methods only
        "pisces", "pisces_embedding", "words", "pisces_words", "words_both", "pisces_words_both", "random_decoder",
    )  # fmt: skip
    n_forms: int = 24  # known facts at most
    # What the model writes, and MMLU, which a model of this size hardly beats chance on, stand beside the axes
    writing_of: tuple[str, ...] = ("pisces", "pisces_words")  # after these methods only
    n_mmlu: int = 40  # items of at most MMLU_LENGTH characters; 0: none


def erasure(
    lm: LanguageModel,
    table: ResultTable,
    concepts: Sequence[str] | None = None,
    methods: Sequence[str] = COMPARED,
    saes: Dictionaries | None = None,
    cfg: ErasureConfig | None = None,
    test: FinalConfig = FinalConfig(),
) -> None:
    """One cell per concept and method, concept by concept; `saes`: the shipped dictionaries unless given.

    Metrics ending in `_known` count only questions that the original model answers rightly. `possible` is 0 where a
    method could not be applied; then the cell has no other metric. The cell `original` of a concept holds what the
    model knows before: `known_<set>`, the number of questions answered rightly, and `accuracy_<set>`; and how selective
    the edits of its features are (`reach`).
    """
    cfg = cfg or ErasureConfig()
    concepts = list_concepts() if concepts is None else list(concepts)
    saes = shipped_dictionaries(lm) if saes is None else saes
    settings = json.loads(json.dumps({"chosen_on_dev": asdict(cfg), "test": asdict(test)}))
    table.begin(concepts=concepts, methods=list(methods), layers=sorted(saes), **settings)
    general = General(lm, cfg, test)
    for name in concepts:
        wanted = [method for method in (ORIGINAL, *methods) if table.missing(name, method)]
        if not wanted:
            continue
        started, concept = time.monotonic(), load_concept(name)
        work = Measured(Erasure(lm, saes, concept, cfg, table.seed, general.dev), test, general)
        for method in wanted:
            found = work.known() if method == ORIGINAL else work.measure(method)
            table.add(found, name, method)
            axes = (f"{k}_known" for k in ("efficacy", "specificity", "coherence"))
            shown = ", ".join(f"{k} {found[k]}" for k in (*axes, "known_target") if k in found)
            print(f"{name} {method} ({time.monotonic() - started:.0f} s): {shown or 'not possible'}", flush=True)
    table.close(concepts=concepts, methods=list(methods), layers=sorted(saes), **settings)


class General:
    """What all concepts share, as the original model answers or writes it; asked when first needed."""

    def __init__(self, lm: LanguageModel, cfg: ErasureConfig, test: FinalConfig):
        self.lm, self.n_dev, self.n_test, self.n_mmlu = lm, cfg.search.n_asked, test.n_spared, test.n_mmlu

    @cached_property
    def dev(self) -> Asked:
        return ask(self.lm, general_questions("dev")[::-1], self.n_dev)

    @cached_property
    def test(self) -> Asked:
        return ask(self.lm, general_questions("test"), self.n_test)

    @cached_property
    def writing(self) -> Behaviour:
        return behaviour(self.lm)

    @cached_property
    def mmlu(self) -> Asked | None:
        """Short items of MMLU; None where none is asked for."""
        if not self.n_mmlu:
            return None
        short = [q for q in mmlu_items() if len(q.q) + sum(map(len, q.options)) <= MMLU_LENGTH]
        return ask(self.lm, short, self.n_mmlu)


class Measured:
    """One concept's erasures, each compared with the original model."""

    def __init__(self, work: Erasure, cfg: FinalConfig, general: General):
        self.work, self.cfg, self.general = work, cfg, general
        questions = concept_questions(work.concept, "test")
        self.asked = {"target": ask(work.lm, questions["target"], cfg.n_target)}
        if "neighbour" in questions:
            self.asked["neighbour"] = ask(work.lm, questions["neighbour"], cfg.n_spared)
        self.asked["general"] = general.test

    @cached_property
    def base_card(self) -> Scorecard:
        """Of the original model, whose questions are asked already."""
        bare = score_sets(self.work.lm, self.work.concept.name, "test", {}, self.cfg.n_texts)
        return replace(bare, scores={name: found.scores for name, found in self.asked.items()})

    def card(self) -> Scorecard:
        """Of the model as it is now."""
        questions = {name: found.questions for name, found in self.asked.items()}
        lm, cfg = self.work.lm, self.cfg
        return score_sets(lm, self.work.concept.name, "test", questions, cfg.n_texts)

    def known(self) -> dict[str, Interval]:
        """What the original model knows."""
        found = {}
        for name, asked in self.asked.items():
            right = asked.scores.correct
            found[f"known_{name}"] = _number(float(right.sum()))
            found[f"accuracy_{name}"] = bootstrap(right.double(), seed=self.work.seed)
        if self.work.features:
            found["features"] = _number(float(len(self.work.features)))
            found["reach"] = bootstrap([f.reach for f in self.work.features], seed=self.work.seed)
        for form, scores in self.forms.items():
            found[f"accuracy_{form}"] = bootstrap(scores.correct.double(), seed=self.work.seed)
        return found

    def state(self) -> dict:
        """What is compared beside the card, of the model as it is now."""
        places = [(v.layer, v.neuron, v.sign) for v in self.work.vectors[: self.cfg.n_vectors]]
        found = {"trace": trace(self.work.lm, places), "energy": self._energy()}
        return found | ({"rows": trace(self.work.lm, self.rows)} if self.rows else {})

    @cached_property
    def rows(self) -> list[tuple[int, int, int]]:
        """Of each feature that was found the rows that hold most of it in the original, edited or not."""
        found = {}
        for f in self.work.features:
            sae = self.work.saes[f.layer]
            e = rows_for(self.work.lm, sae) @ sae.W_enc[:, f.index]
            found |= {(f.layer, j): int(e[j].sign()) for j in e.abs().topk(min(ROWS, len(e))).indices.tolist()}
        return [(layer, j, sign) for (layer, j), sign in found.items()]

    def _forms(self) -> dict[str, QuestionScores]:
        facts = self.asked["target"].known(self.cfg.n_forms).questions
        return score_forms(self.work.lm, facts, self.cfg.forms)

    def _beside(self) -> dict[str, Interval]:
        """What the model writes, and MMLU, now against the original."""
        general, seed = self.general, self.work.seed
        found = compare_writing(general.writing, behaviour(self.work.lm), seed=seed)
        if (mmlu := general.mmlu) is not None:
            now = score_questions(self.work.lm, mmlu.questions)
            found |= {"mmlu_before": bootstrap(mmlu.scores.correct.double(), seed=seed)}
            found |= {"mmlu_after": bootstrap(now.correct.double(), seed=seed)}
            found["gold_mmlu"] = paired_bootstrap(now.gold, mmlu.scores.gold, seed=seed)
        return found

    def _energy(self) -> torch.Tensor:
        """Write energy of every feature that was found, edited or not, by layer; empty where there are none."""
        parts = [torch.zeros(0)]
        for layer in sorted({f.layer for f in self.work.features}):
            chosen = [f for f in self.work.features if f.layer == layer]
            d = torch.stack([f.sign * self.work.saes[layer].W_dec[f.index].detach() for f in chosen])
            rows = rows_for(self.work.lm, self.work.saes[layer])
            parts.append(write_energy(self.work.lm, layer, d, self.work.signs[layer], rows).float())
        return torch.cat(parts)

    @cached_property
    def forms(self) -> dict[str, QuestionScores]:
        """The known facts in other forms, as the original answers them."""
        return self._forms()

    @cached_property
    def base(self) -> dict:
        return self.state()

    def measure(self, method: str) -> dict[str, Interval]:
        """All metrics of one method."""
        base, before, with_forms = self.base, self.base_card, method in self.cfg.forms_of
        forms, beside = (self.forms if with_forms else {}), {}
        if method in self.cfg.writing_of:
            _ = self.general.writing, self.general.mmlu  # of the original, so before the edit is applied
        try:
            edit = self.work.edit(method)
        except ConceptLabError as error:
            print(f"{self.work.concept.name} {method}: {error}", flush=True)
            return {"possible": _number(0.0)}
        with edit.applied(self.work.lm):
            card, after = self.card(), self.state()
            asked_again = self._forms() if with_forms else {}
            if method in self.cfg.writing_of:
                beside = self._beside()
        found = {"possible": _number(1.0)} | _card_metrics(before, card, self.work.seed)
        for form, scores in forms.items():
            pair = [Scorecard(self.work.concept.name, "test", {"target": s}) for s in (scores, asked_again[form])]
            found[f"left_{form}"] = compare(*pair, seed=self.work.seed).changes["target"].relative
        left = residue(base["trace"], after["trace"])
        found |= beside | {f"residue_{name}": value for name, value in vars(left).items()}
        if "rows" in base:
            found["residue_rows_cosine"] = residue(base["rows"], after["rows"]).cosine
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
