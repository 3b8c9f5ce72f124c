"""What is measured of one method on the test questions of one concept."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from ..core import Interval, NotPossible, bootstrap, paired_bootstrap
from ..data import Concept, general_questions, list_concepts, load_concept, mmlu_items
from ..edits import Intervention
from ..erasure import Feature, Shared, SharedConfig, rows_for
from ..evaluation import (
    Asked,
    Behaviour,
    DepthBase,
    QuestionScores,
    Scorecard,
    ask,
    behaviour,
    compare,
    compare_writing,
    concept_questions,
    depth,
    depth_base,
    overshoot,
    residue,
    score_forms,
    score_questions,
    score_sets,
    trace,
    unasked,
    write_energy,
)
from ..models import LanguageModel

MMLU_LENGTH = 250
ROWS = 5  # per feature, whose residue is measured


@dataclass(frozen=True)
class FinalConfig:
    """What is measured on the test questions."""

    n_target: int | None = 40  # questions on the concept; None: all
    n_spared: int | None = 24  # questions on the neighbour, and general ones
    n_others: int = 8  # known questions on each other concept, for the collateral map; 0: none
    n_texts: int = 6  # held-out passages
    n_vectors: int = 20  # concept vectors whose residue is measured
    forms: tuple[str, ...] = ("cloze", "clue")  # further forms in which known target facts are asked
    forms_of: tuple[str, ...] | None = None  # after these methods only; None: after every method
    n_forms: int = 24  # known facts at most
    # What the model writes, and MMLU, which a model of this size hardly beats chance on, stand beside the axes
    writing_of: tuple[str, ...] = ("pisces", "pisces+words")  # after these methods only
    n_mmlu: int = 40  # items of at most MMLU_LENGTH characters; 0: none
    n_depth: int = 12  # known target questions that depth and the answers' weight unasked are measured on; 0: none


class General:
    """What all concepts share, as the original model answers or writes it; asked when first needed."""

    def __init__(self, lm: LanguageModel, shared: SharedConfig, test: FinalConfig):
        self.lm, self.n_dev, self.n_test, self.n_mmlu = lm, shared.search.n_asked, test.n_spared, test.n_mmlu
        self.n_others = test.n_others

    @cached_property
    def dev(self) -> Asked:
        return ask(self.lm, general_questions("dev")[::-1], self.n_dev)

    @cached_property
    def test(self) -> Asked:
        return ask(self.lm, general_questions("test"), self.n_test)

    @cached_property
    def others(self) -> dict[str, Asked]:
        """Known test questions on every concept, for the collateral map (every edit on every other concept)."""
        if not self.n_others:
            return {}
        asked = {name: ask(self.lm, load_concept(name).test, 3 * self.n_others) for name in list_concepts()}
        known = {name: found.known(self.n_others) for name, found in asked.items()}
        return {name: found for name, found in known.items() if len(found.questions)}

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


class Scoring:
    """One concept's interventions, each compared with the original model."""

    def __init__(self, lm: LanguageModel, concept: Concept, shared: Shared, cfg: FinalConfig, general: General):
        self.lm, self.concept, self.shared, self.cfg, self.general = lm, concept, shared, cfg, general

    @cached_property
    def asked(self) -> dict[str, Asked]:
        """Every set of test questions as the original answers it."""
        found = {}
        for name, questions in concept_questions(self.concept, "test").items():
            n = self.cfg.n_target if name == "target" else self.cfg.n_spared
            found[name] = self.general.test if name == "general" else ask(self.lm, questions, n)
        return {name: found[name] for name in sorted(found, key=lambda x: (x != "target", x != "neighbour"))}

    @cached_property
    def base_card(self) -> Scorecard:
        """Of the original model, whose questions are asked already."""
        bare = score_sets(self.lm, self.concept.name, "test", {}, self.cfg.n_texts)
        return replace(bare, scores={name: found.scores for name, found in self.asked.items()})

    def card(self) -> Scorecard:
        """Of the model as it is now."""
        questions = {name: found.questions for name, found in self.asked.items()}
        return score_sets(self.lm, self.concept.name, "test", questions, self.cfg.n_texts)

    @cached_property
    def features(self) -> list[Feature]:
        """Those that were found for the concept; none where there are none."""
        try:
            return self.shared.features if self.shared.dictionaries else []
        except NotPossible:
            return []

    def known(self) -> dict[str, Interval]:
        """What the original model knows."""
        found, seed = {}, self.shared.seed
        for name, asked in self.asked.items():
            right = asked.scores.correct
            found[f"known_{name}"] = number(float(right.sum()))
            found[f"accuracy_{name}"] = bootstrap(right, over="questions")
        if self.features:
            found["features"] = number(float(len(self.features)))
            found["reach"] = bootstrap([f.reach for f in self.features], seed=seed)
        for form, scores in self.forms.items():
            found[f"accuracy_{form}"] = bootstrap(scores.correct, over="questions")
        return found

    # ---- beside the card ------------------------------------------------------------------------------------
    def state(self) -> dict:
        """What is compared beside the card, of the model as it is now."""
        places = [(v.layer, v.neuron, v.sign) for v in self.shared.vectors(self.cfg.n_vectors)]
        found = {"trace": trace(self.lm, places), "energy": self._energy()}
        return found | ({"rows": trace(self.lm, self.rows)} if self.rows else {})

    @cached_property
    def rows(self) -> list[tuple[int, int, int]]:
        """Of each feature that was found the rows that hold most of it in the original, edited or not."""
        found: dict[tuple[int, int], int] = {}
        for f in self.features:
            sae = self.shared.dictionaries[f.layer]
            e = rows_for(self.lm, sae) @ sae.W_enc[:, f.index]
            found |= {(f.layer, j): int(e[j].sign()) for j in e.abs().topk(min(ROWS, len(e))).indices.tolist()}
        return [(layer, j, sign) for (layer, j), sign in found.items()]

    def _energy(self) -> torch.Tensor:
        """Write energy of every feature that was found, edited or not, by layer; empty where there are none."""
        parts = [torch.zeros(0)]
        for layer in sorted({f.layer for f in self.features}):
            sae, chosen = self.shared.dictionaries[layer], [f for f in self.features if f.layer == layer]
            index = torch.tensor([f.index for f in chosen], device=sae.W_dec.device)
            d = torch.tensor([[f.sign] for f in chosen], device=index.device) * sae.directions(index).detach()
            parts.append(write_energy(self.lm, layer, d, self.shared.signs[layer], rows_for(self.lm, sae)).float())
        return torch.cat(parts)

    def _forms(self) -> dict[str, QuestionScores]:
        facts = self.asked["target"].known(self.cfg.n_forms).questions
        return score_forms(self.lm, facts, self.cfg.forms)

    def _with_forms(self, method: str) -> bool:
        return self.cfg.forms_of is None or method in self.cfg.forms_of

    @cached_property
    def forms(self) -> dict[str, QuestionScores]:
        """The known facts in other forms, as the original answers them."""
        return self._forms()

    @cached_property
    def base(self) -> dict:
        return self.state()

    def _beside(self) -> dict[str, Interval]:
        """What the model writes, and MMLU, now against the original."""
        general, seed = self.general, self.shared.seed
        found = compare_writing(general.writing, behaviour(self.lm), seed=seed)
        if (mmlu := general.mmlu) is not None:
            now = score_questions(self.lm, mmlu.questions)
            found |= {"mmlu_before": bootstrap(mmlu.scores.correct, over="questions")}
            found |= {"mmlu_after": bootstrap(now.correct, over="questions")}
            found["gold_mmlu"] = paired_bootstrap(now.gold, mmlu.scores.gold, seed=seed)
        return found

    def collateral(self) -> dict[str, Interval]:
        """Every other concept's known questions now: change of gold log-probability (nats), and accuracy."""
        found = {}
        for name, asked in self.general.others.items():
            if name != self.concept.name:
                now = score_questions(self.lm, asked.questions)
                found[f"collateral_gold_{name}"] = paired_bootstrap(now.gold, asked.scores.gold, seed=self.shared.seed)
                found[f"collateral_accuracy_{name}"] = bootstrap(now.correct, seed=self.shared.seed)
        return {metric: x for metric, x in found.items() if not math.isnan(x.low)}  # one question has no interval

    @cached_property
    def inside(self) -> tuple[Asked, DepthBase, QuestionScores] | None:
        """The known facts, what is patched of them, and what their answers weigh behind other questions."""
        facts = self.asked["target"].known(self.cfg.n_depth) if self.cfg.n_depth else None
        if facts is None or len({q.gold.lower() for q in facts.questions}) < 2:
            return None
        return facts, depth_base(self.lm, facts.questions), unasked(self.lm, facts.questions)

    def _inside(self, intervention: Intervention) -> dict[str, Interval]:
        """Depth, and how far the answers fell against their weight unasked."""
        if self.inside is None:
            return {}
        facts, base, floor = self.inside
        with intervention.applied(self.lm):
            now = score_questions(self.lm, facts.questions)
        over = overshoot(facts.scores, now, floor)
        found = {"depth": depth(self.lm, base, intervention).score, "below_unasked": over.below}
        found |= {"gap_unasked": over.gap, "removed_unasked": over.removed}
        return {metric: x for metric, x in found.items() if x.measurable and not math.isnan(x.low)}

    # ---- one method -----------------------------------------------------------------------------------------
    def measure(self, method: str, intervention: Intervention) -> dict[str, Interval]:
        """All metrics of one method."""
        base, before, with_forms = self.base, self.base_card, self._with_forms(method)
        forms, beside, seed = (self.forms if with_forms else {}), {}, self.shared.seed
        if method in self.cfg.writing_of:
            _ = self.general.writing, self.general.mmlu  # of the original, so before the edit is applied
        _ = self.general.others
        inside = self._inside(intervention)
        with intervention.applied(self.lm):
            card, after, collateral = self.card(), self.state(), self.collateral()
            asked_again = self._forms() if with_forms else {}
            if method in self.cfg.writing_of:
                beside = self._beside()
        found = {"possible": number(1.0)} | card_metrics(before, card, seed) | collateral | inside
        for form, scores in forms.items():
            plain, now = (Scorecard(self.concept.name, "test", {"target": s}) for s in (scores, asked_again[form]))
            left_of_form = compare(plain, now, seed=seed).changes["target"].relative
            found |= {f"left_{form}": left_of_form} if left_of_form.measurable else {}
        left = residue(base["trace"], after["trace"])
        found |= beside | {f"residue_{name}": value for name, value in vars(left).items()}
        if "rows" in base:
            found["residue_rows_cosine"] = residue(base["rows"], after["rows"]).cosine
        energy = after["energy"] / base["energy"]
        if len(energy[energy.isfinite()]):
            found["energy_left"] = bootstrap(energy[energy.isfinite()])
        return found


def card_metrics(base: Scorecard, after: Scorecard, seed: int) -> dict[str, Interval]:
    """Axes of the scorecard over all questions and over the known ones; accuracies; changes in nats.

    What is not measurable, because the original cannot do it, has no row.
    """
    found: dict[str, Interval] = {}
    for ending, known in (("", False), ("_known", True)):
        if known and not all(bool(s.correct.any()) for s in base.scores.values()):
            continue  # the original knows nothing of one of the sets
        result = compare(base, after, seed=seed, known=known)
        for axis in ("efficacy", "specificity", "coherence", "overall"):
            found[axis + ending] = getattr(result, axis)
        if result.specificity_unseen is not None:
            found[f"specificity_unseen{ending}"] = result.specificity_unseen
        for name, change in result.changes.items():
            found[f"left_{name}{ending}"] = change.relative
            found[f"accuracy_{name}_before{ending}"] = change.accuracy_before
            found[f"accuracy_{name}_after{ending}"] = change.accuracy_after
            if known:
                found[f"redrawn_{name}_known"] = number(change.redrawn)
            if not known:
                found[f"gold_{name}"], found[f"margin_{name}"] = change.gold, change.margin
        if not known:
            found |= {f"coherence_{name}": value for name, value in result.parts.items()}
    return {metric: value for metric, value in found.items() if value.measurable}


def number(value: float | int) -> Interval:
    """A number that is not an estimate."""
    return Interval(float(value), float(value), float(value), 1)
