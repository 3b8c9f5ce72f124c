"""Erasing one concept by any method: find what it needs, choose the strength on dev questions, return the edit.

Methods: `pisces`; `directional` (directional ablation of the same features); `embedding` (EMBER's edit of the input
embeddings alone); `pisces_embedding` (both); `needle` (the top-n concept vectors set to zero); and two controls of the
size of the PISCES edit, `random_features` and `random_norm`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

from .baselines import needle_edit, needle_vectors, random_feature_edit, random_norm_edit
from .cache import ConceptLabError, cache_dir
from .concept_vectors import ConceptVector
from .concepts import Concept
from .edits import WeightEdit
from .embedding_edit import ConceptAtoms, EmberConfig, concept_atoms, embedding_edit
from .evaluation import Judge, SearchConfig, edit_effects, search_settings
from .models import LanguageModel
from .pisces import (
    Dictionaries,
    Feature,
    causal_filter,
    directional_edit,
    find_features,
    neuron_signs,
    pisces_edit,
    word_filter,
)
from .sae import load_shipped, shipped_layers

METHODS = (
    "pisces", "directional", "pisces_embedding", "embedding", "needle", "random_features", "random_norm",
)  # fmt: skip
Axes = dict[str, Sequence[float | int]]  # knob -> values from weak to strong


@dataclass(frozen=True)
class ErasureConfig:
    """Sizes and grids; every grid runs from weak to strong."""

    taus: tuple[float, ...] = (0.6, 0.4, 0.2, 0.05)  # share of the largest projection that a row must exceed
    mus: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # strength, in largest projections of the layer
    turns: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0)  # c of the directional edit
    deltas: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0, 10.0)  # strength of the embedding edit (of EMBER's eight)
    needle_n: tuple[int, ...] = (5, 10, 20, 50, 100, 200)  # concept vectors set to zero
    ramp: int = 0  # layers below it are edited more weakly (10 for Gemma-2, as published)
    n_evidence: int = 60  # texts each of concept, neighbour and background that the features are found on
    n_candidates: int = 24  # features that the filters try one by one
    n_features: int = 10  # features that are edited, at most
    probe: tuple[float, float] = (0.2, 4.0)  # tau and mu at which the filters judge single features
    n_prompts: int = 8  # dev prompts per side in the word filter
    n_questions: int = 10  # dev questions per set in the causal filter
    n_signs: int = 60  # texts on which the neurons' signs are read
    search: SearchConfig = SearchConfig()
    ember: EmberConfig = EmberConfig()


def shipped_dictionaries(lm: LanguageModel) -> Dictionaries:
    """The shipped dictionary of every layer that has one. Raises ConceptLabError when none has."""
    layers = shipped_layers(lm.name)
    if not layers:
        raise ConceptLabError(f"No dictionary of {lm.name} is shipped; train some with `conceptlab train-sae`.")
    return {layer: load_shipped(lm, layer) for layer in layers}


class Erasure:
    """Everything about one concept that several methods share; each part is made when it is first needed."""

    def __init__(self, lm: LanguageModel, saes: Dictionaries, concept: Concept, cfg: ErasureConfig, seed: int = 0):
        self.lm, self.saes, self.concept, self.cfg, self.seed = lm, saes, concept, cfg, seed
        self.settings: dict[str, dict[str, float]] = {}  # method -> what was chosen on dev
        self._edits: dict[str, WeightEdit] = {}

    # ---- what the edits need --------------------------------------------------------------------------------
    @cached_property
    def signs(self) -> dict:
        texts = self.concept.texts()[: self.cfg.n_signs]
        return neuron_signs(self.lm, sorted(self.saes), texts, self.concept.words)

    @cached_property
    def features(self) -> list[Feature]:
        """Candidates that pass the word filter and the causal filter; where none does, the least bad ones.

        Empty where no dictionary has a candidate.
        """
        cfg = self.cfg
        if not self.saes:
            return []
        candidates = find_features(
            self.lm, self.saes, self.concept, cfg.n_candidates, n_texts=cfg.n_evidence, seed=self.seed
        )
        if not candidates:
            return []

        def alone(f: Feature) -> WeightEdit:
            return pisces_edit(self.lm, self.saes, [f], *self.cfg.probe, self.signs)

        kept = word_filter(self.lm, candidates, self.concept, alone, cfg.n_prompts).kept or tuple(candidates)
        effects = edit_effects(self.lm, [alone(f) for f in kept], self.concept, cfg.n_questions)
        chosen = causal_filter(kept, effects) or [kept[i] for i in effects[:, 0].argsort().tolist()[:3]]
        return chosen[: cfg.n_features]

    @cached_property
    def atoms(self) -> ConceptAtoms:
        return concept_atoms(self.lm, self.concept, self.cfg.ember)

    @cached_property
    def vectors(self) -> list[ConceptVector]:
        return needle_vectors(self.lm, self.concept, max(*self.cfg.needle_n, 20))

    @cached_property
    def judge(self) -> Judge:
        return Judge(self.lm, self.concept, self.cfg.search)

    # ---- the edits ------------------------------------------------------------------------------------------
    def edit(self, method: str) -> WeightEdit:
        """The edit of a method at the strength chosen on dev, which `settings[method]` then says."""
        if method not in self._edits:
            if method not in _EDITS:
                raise ConceptLabError(f"Unknown method {method!r}; known are {', '.join(_EDITS)}.")
            self._edits[method] = _EDITS[method](self)
        return self._edits[method]

    def chosen(
        self, method: str, axes: dict[str, Sequence[float | int]], make: Callable[..., WeightEdit]
    ) -> WeightEdit:
        """The best setting on dev questions (finished cells are kept in the cache), and its edit."""
        strongest = make(**{knob: float(values[-1]) for knob, values in axes.items()})
        size = f"{strongest.report(self.lm)['norm']:.3g}"  # another dictionary with features of the same numbers
        about = [self.lm.name, self.concept.name, method, strongest.info, size, axes, asdict(self.cfg), self.seed]
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]
        path = cache_dir() / "search" / f"{name}.json"
        best = search_settings(self.lm, self.concept, axes, make, self.cfg.search, path, judge=self.judge).best
        self.settings[method] = best.setting | {"passed_gates": float(best.passed)}
        return make(**best.setting)

    def _pisces(self) -> WeightEdit:
        axes = {"tau": self.cfg.taus, "mu": self.cfg.mus}
        return self.chosen(
            "pisces",
            axes,
            lambda tau, mu: pisces_edit(self.lm, self.saes, self.features, tau, mu, self.signs, ramp=self.cfg.ramp),
        )

    def _directional(self) -> WeightEdit:
        axes = {"c": self.cfg.turns}
        return self.chosen("directional", axes, lambda c: directional_edit(self.lm, self.saes, self.features, c))

    def _embedding(self) -> WeightEdit:
        axes = {"delta": self.cfg.deltas}
        return self.chosen("embedding", axes, lambda delta: embedding_edit(self.lm, self.atoms, delta))

    def _pisces_embedding(self) -> WeightEdit:
        """As EMBER does it: the embedding edit on top of the chosen PISCES edit."""
        first = self.edit("pisces")
        return self.chosen(
            "pisces_embedding",
            {"delta": self.cfg.deltas},
            lambda delta: first + embedding_edit(self.lm, self.atoms, delta),
        )

    def _needle(self) -> WeightEdit:
        return self.chosen(
            "needle", {"n": self.cfg.needle_n}, lambda n: needle_edit(self.lm, self.vectors, int(n), seed=self.seed)
        )

    def _random_features(self) -> WeightEdit:
        return random_feature_edit(self.lm, self.saes, self.features, self.edit("pisces"), self.seed)

    def _random_norm(self) -> WeightEdit:
        return random_norm_edit(self.edit("pisces"), self.seed)


_EDITS: dict[str, Callable[[Erasure], WeightEdit]] = {name: getattr(Erasure, f"_{name}") for name in METHODS}
