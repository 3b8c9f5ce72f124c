"""What several methods of erasure need for one concept of one model, each part made once, on the original weights."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from ..concept_vectors import ConceptVector
from ..core import ConceptLabError, NotPossible
from ..data import Concept, Question, evidence_texts, form_texts
from ..edits import Intervention, WeightEdit
from ..evaluation import Asked, Judge, concept_questions, edit_effects
from ..models import LanguageModel
from .method import Fitted, choose, get_method, lost_on_dev
from .pisces.edit import pisces_edit
from .pisces.features import (
    Dictionaries,
    Feature,
    PublishedEdit,
    hand_picked,
    published_edit,
)
from .pisces.filters import causal_filter, filter_features
from .pisces.find import find_features
from .pisces.reach import Evidence, edit_reach, gather_evidence, reaching_features
from .shared_config import SharedConfig, shipped_dictionaries
from .words import ConceptAtoms, word_atoms
from .zeroed import promoting_vectors


class Shared:
    """`Shared(lm, concept)`: parts that methods of erasure ask for; each is made when it is first needed, and kept.

    Everything is made on the weights that the model has now: asking for a part inside an edit raises ConceptLabError.
    `dictionaries`: the shipped ones unless given. `features`: a list by hand, all of which are edited. Without one, the
    features that the authors published for this model and concept, where there are such and the dictionaries have their
    layers; else those found. `general`: general dev questions as the original answers them, where they are at hand.
    Raises ConceptLabError for an empty list, a feature named twice, or one that no dictionary has.
    """

    def __init__(
        self,
        lm: LanguageModel,
        concept: Concept,
        dictionaries: Dictionaries | None = None,
        cfg: SharedConfig | None = None,
        seed: int = 0,
        *,
        general: Asked | None = None,
        features: Sequence[Feature] | None = None,
    ):
        self.lm, self.concept, self.cfg, self.seed, self.general = lm, concept, cfg or SharedConfig(), seed, general
        self.weights = lm.fingerprint()
        self._given = dictionaries
        self._made: dict[Hashable, Any] = {}
        self._lately: tuple[Hashable, dict[Hashable, Any]] = (None, {})
        self._chosen: dict[str, Fitted] = {}
        if features is not None:
            hand_picked(lm, self.dictionaries, [(f.layer, f.index, f.sign) for f in features])  # raises for bad ones
        self._by_hand = None if features is None else list(features)

    def of_others(self, key: Hashable, make: Callable[[], Dictionaries]) -> Shared:
        """The same parts with other dictionaries of (some of) the same layers, in which features are found anew.

        Evidence, texts and judge are those of this one. `make` is called once per key.
        """

        def other() -> Shared:
            found = Shared(self.lm, self.concept, make(), self.cfg, self.seed, general=self.general)
            found._made |= {"evidence": self.evidence, "judge": self.judge}
            return found

        return self.made(key, other)

    def check(self, lm: LanguageModel, concept: Concept) -> None:
        """Raise where a method is fitted to something else than the parts are of."""
        if lm is not self.lm or concept.name != self.concept.name:
            raise ConceptLabError(
                f"These parts are of {self.concept.name} and {self.lm.name}; make Shared(lm, concept) for another."
            )
        self._on_original()

    def _on_original(self) -> None:
        if self.lm.fingerprint() != self.weights:
            raise ConceptLabError(
                f"{self.lm.name} is changed at this moment; what methods share is made on the original, so ask for it "
                "outside `applied`."
            )

    def made(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` returns, made once per key on the original weights."""
        if key not in self._made:
            self._on_original()
            self._made[key] = make()
        return self._made[key]

    def lately(self, owner: Hashable, key: Hashable, make: Callable[[], Any]) -> Any:
        """Like `made`, but kept only until another owner makes something: a training weighs as much as a model."""
        if self._lately[0] != owner:
            self._lately = owner, {}
        if key not in self._lately[1]:
            self._on_original()
            self._lately[1][key] = make()
        return self._lately[1][key]

    # ---- dictionaries and features --------------------------------------------------------------------------
    @cached_property
    def dictionaries(self) -> Dictionaries:
        """Layer -> dictionary."""
        return shipped_dictionaries(self.lm) if self._given is None else self._given

    @cached_property
    def published(self) -> PublishedEdit | None:
        """What the authors give for this concept and model."""
        return published_edit(self.lm, self.dictionaries, self.concept.name)

    @property
    def picked(self) -> list[Feature] | None:
        """Features that were not found but given: by hand, or by the authors."""
        if self._by_hand is not None:
            return self._by_hand
        found = self.published
        whole = found is not None and {f.layer for f in found.features} <= set(self.dictionaries)
        return list(found.features) if found is not None and whole else None

    @property
    def evidence(self) -> Evidence:
        """Activations at tokens of the concept, the neighbour and elsewhere."""
        cfg, layers = self.cfg, sorted(self.dictionaries)
        return self.made(
            "evidence",
            lambda: gather_evidence(self.lm, layers, self.concept, cfg.n_evidence, cfg.n_asked, seed=self.seed),
        )

    @property
    def signs(self) -> dict:
        """Layer -> sign of each neuron's activation on the concept."""
        return self.evidence.signs

    @property
    def candidates(self) -> list[Feature]:
        """The features with the most selective edits, before the causal filter.

        Those picked by hand or published are all there is, in their order. Raises NotPossible where none is found.
        """
        return self.made("candidates", self._candidates)

    def _candidates(self) -> list[Feature]:
        lm, cfg = self.lm, self.cfg
        if self.picked is not None:
            return self._with_reach(self.picked)
        if not self.dictionaries:
            raise NotPossible("No features were given, and there are no dictionaries to find any in.")
        if cfg.finding == "evidence":
            found = find_features(
                lm, self.dictionaries, self.concept, cfg.n_candidates, n_texts=cfg.n_evidence, seed=self.seed
            )
            if not found:
                raise NotPossible(f"No feature of {lm.name}'s dictionaries reads or writes {self.concept.title}.")
            return self._with_reach(found)
        return reaching_features(
            lm, self.dictionaries, self.evidence, cfg.n_candidates, cfg.reach_tau, min_share=cfg.min_share
        )

    def _with_reach(self, features: Sequence[Feature]) -> list[Feature]:
        """The same features with their reach, which nobody has measured yet."""
        found: dict[tuple[int, int], float] = {}
        for layer in {f.layer for f in features}:
            index = [f.index for f in features if f.layer == layer]
            sae = self.dictionaries[layer]
            reach = edit_reach(self.lm, sae, self.evidence, self.cfg.reach_tau, torch.tensor(index))
            found |= {(layer, i): ratio for i, ratio in zip(index, reach.ratio.tolist(), strict=True)}
        return [replace(f, reach=found[f.layer, f.index]) for f in features]

    @property
    def features(self) -> list[Feature]:
        """The candidates that pass the causal filter, those with the strongest effect first; found by "evidence", those
        that pass the three filters of the paper. Where none does, three: those with the strongest effect, or the best
        evidence. Picked ones all stay. Raises NotPossible where there is no candidate.
        """
        return self.made("features", self._filtered)

    def _filtered(self) -> list[Feature]:
        cfg, candidates = self.cfg, self.candidates
        if not cfg.n_questions or self.picked is not None:
            return candidates

        def alone(f: Feature) -> WeightEdit:
            return pisces_edit(self.lm, self.dictionaries, [f], *cfg.probe, self.signs)

        if cfg.finding == "evidence":
            kept = filter_features(
                self.lm, self.dictionaries, candidates, self.concept, alone, cfg.n_asked, cfg.n_asked
            ).kept
            return list(kept) or candidates[:3]
        effects = edit_effects(self.lm, [alone(f) for f in candidates], self.concept, cfg.n_questions)
        return causal_filter(candidates, effects) or [candidates[i] for i in effects[:, 0].argsort().tolist()[:3]]

    @property
    def edited(self) -> list[Feature]:
        """Those that the chosen PISCES edit changes."""
        return self.features[: self.chosen("pisces").config.n]

    # ---- words, vectors, texts ------------------------------------------------------------------------------
    @property
    def word_atoms(self) -> ConceptAtoms:
        """The concept's words and what their embeddings have beyond the mean."""
        return self.made("word_atoms", lambda: word_atoms(self.lm, self.concept))

    def vectors(self, n: int) -> list[ConceptVector]:
        """The `n` value vectors (at most) that promote the concept's words most."""
        size = max(n, 200)
        return self.made(("vectors", size), lambda: promoting_vectors(self.lm, self.concept, size))[:n]

    @property
    def forget(self) -> list[str]:
        """Texts to forget: leads on the concept, and the dev facts that no strength is chosen on, in `cfg.forms`."""
        return (self.leads[0] if self.cfg.leads else []) + [
            text for form in self.cfg.forms for text in form_texts(self.forget_facts, form)
        ]

    @property
    def forget_facts(self) -> list[Question]:
        """Dev questions on the concept that no strength is chosen on; methods may look at them."""
        return self._unjudged("target")

    def dev(self, name: str) -> tuple[Question, ...]:
        """The dev questions of a set: target, neighbour or general."""
        return concept_questions(self.concept, "dev").get(name, ())

    @property
    def keep(self) -> list[str]:
        """Texts to keep: leads on the neighbour and on neither."""
        return self.leads[1] + self.leads[2]

    @property
    def keep_facts(self) -> list[Question]:
        """Dev questions on the neighbour, and as many general ones at most, that no strength is chosen on."""
        near = self._unjudged("neighbour")
        return near + self._unjudged("general")[: max(len(near), 1)]

    def _unjudged(self, name: str) -> list[Question]:
        judged = self.judge.questions.get(name, ())
        return [q for q in self.dev(name) if q not in judged]

    @property
    def leads(self) -> tuple[list[str], list[str], list[str]]:
        """Leads on the concept, on its neighbour, and on neither."""
        return self.made("texts", lambda: evidence_texts(self.concept, self.cfg.n_texts, self.seed))

    # ---- judging --------------------------------------------------------------------------------------------
    @property
    def judge(self) -> Judge:
        """Scores an intervention on dev questions that the original answers rightly."""
        return self.made("judge", lambda: Judge(self.lm, self.concept, self.cfg.search, self.general))

    def lost(self, intervention: Intervention) -> float:
        """Nats of margin that known dev questions on the concept lose."""
        return lost_on_dev(self.lm, self, intervention)

    @property
    def kept(self) -> tuple[str, ...]:
        """Methods whose strength is chosen already."""
        return tuple(self._chosen)

    def keep_chosen(self, fitted: Fitted) -> None:
        """Take a strength that was chosen in an earlier run, so that it is not chosen again."""
        self._chosen[fitted.method] = fitted

    def chosen(self, name: str) -> Fitted:
        """A method at the strength chosen on dev, chosen once; what combinations and controls start from."""
        if name not in self._chosen:
            self._chosen[name] = choose(get_method(name), self.lm, self.concept, self)
        return self._chosen[name]
