"""Erasing one concept by any method: find what it needs, choose the strength on dev questions, return the edit.

Methods: `pisces`; `directional` (directional ablation of the same features); `embedding` (EMBER's edit of the input
embeddings alone), `words` (the whole embeddings of the concept's words) and `words_both` (these in the unembedding too,
where a model shares the two); `pisces_embedding`, `pisces_words` and `pisces_words_both` (PISCES and one of these);
`needle` (the top-n concept vectors set to zero) and `needle_matched` (as many of them as cost the target what PISCES
costs it, whatever else breaks). Controls: four of the size of the PISCES edit, `random_features`, `random_decoder` (the
same rows, written along other features), `random_direction` (the same rows) and `random_norm` (random rows), and
`random_words` and `random_words_both`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial

import torch

from ..concept_vectors import ConceptVector
from ..core import ConceptLabError, cache_dir
from ..data import Concept
from ..edits import WeightEdit, random_direction_edit, random_norm_edit
from ..evaluation import (
    Asked,
    Judge,
    SearchConfig,
    closest,
    concept_questions,
    edit_effects,
    score_questions,
    search_settings,
)
from ..models import LanguageModel
from ..sae import load_sae, load_shipped, shipped_layers
from .controls import random_decoder_edit, random_feature_edit
from .embedding import ConceptAtoms, EmberConfig, concept_atoms, embedding_edit
from .pisces.edit import directional_edit, pisces_edit
from .pisces.features import Dictionaries, Feature, hand_picked, public_dictionaries, published_edit
from .pisces.filters import causal_filter, filter_features
from .pisces.find import find_features
from .pisces.reach import Evidence, edit_reach, gather_evidence, reaching_features
from .words import random_word_atoms, word_atoms
from .zeroed import needle_edit, needle_vectors

METHODS = (
    "pisces", "directional", "pisces_embedding", "pisces_words", "pisces_words_both", "embedding", "words",
    "words_both", "needle", "needle_matched", "random_features", "random_decoder", "random_direction", "random_norm",
    "random_words", "random_words_both",
)  # fmt: skip


WITHOUT_FEATURES = ("embedding", "words", "words_both", "random_words", "random_words_both", "needle")  # no dictionary


Axes = dict[str, Sequence[float | int]]  # knob -> values from weak to strong


@dataclass(frozen=True)
class ErasureConfig:
    """Sizes and grids; every grid runs from weak to strong."""

    taus: tuple[float, ...] = (0.5,)  # share of the largest projection that a row must exceed; 0.3 to 0.7 did the same
    counts: tuple[int, ...] = (5, 12)  # features that are edited, at most, the best first
    mus: tuple[float, ...] = (3.0, 6.0, 10.0, 16.0, 24.0, 36.0)  # strength, in largest projections of the layer
    turns: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0)  # c of the directional edit
    deltas: tuple[float, ...] = (5.0, 20.0, 50.0)  # strength of the embedding edit (of EMBER's eight)
    word_deltas: tuple[float, ...] = (1.0, 2.0)  # strength of the edit of the words: 1 takes their meaning, 2 turns it
    word_mus: tuple[float, ...] = (0.25, 0.5, 1.0)  # of the chosen PISCES edit's mu, together with the words
    needle_n: tuple[int, ...] = (10, 50, 200)  # concept vectors set to zero
    matched_n: tuple[int, ...] = (  # so many until as much is lost as by PISCES
        100, 300, 1000, 2000, 3000, 4000, 5000, 6000, 8000, 10_000, 14_000, 20_000,
    )  # fmt: skip
    ramp: int = 0  # layers below it are edited more weakly; a published edit has its own
    n_evidence: int = 24  # texts each of concept, neighbour and background that the features are found on
    n_asked: int = 24  # and answered dev questions of each, the first ones; strengths are chosen on the last ones (of a
    # file with less than 56 some serve both)
    finding: str = "reach"  # or "evidence": by what features read and write (`find_features`), with the paper's filters
    reach_tau: float = 0.5  # tau at which the features' reach is compared
    min_share: float = 2.0  # for "reach": a feature fires on the concept so many times as strongly as elsewhere
    n_candidates: int = 12  # features with the most selective edits; the filter tries them one by one
    probe: tuple[float, float] = (0.5, 8.0)  # tau and mu at which the filter judges single features
    n_questions: int = 6  # dev questions per set in the causal filter; 0: no filter
    search: SearchConfig = SearchConfig(n_questions=16, n_asked=32, n_clues=12, n_texts=4)
    ember: EmberConfig = EmberConfig()


def shipped_dictionaries(lm: LanguageModel, layers: Sequence[int] | None = None) -> Dictionaries:
    """layer -> dictionary: the shipped ones of some layers, or of every layer that has one.

    Where nothing is shipped for a model, the public ones that the authors of PISCES used with it (`PUBLIC`), the same
    files as they did: by default of the layers that are named there. Raises ConceptLabError when there are neither, for
    a layer that the model or the shipped ones do not have, and where the Hub cannot be reached.
    """
    shipped = shipped_layers(lm.name)
    public = None if shipped else public_dictionaries(lm.name)
    if public is not None:
        wanted = [lm.check_layer(layer) for layer in (public.layers if layers is None else layers)]
        return {layer: load_sae(public.repository, layer, public.names[layer], lm=lm) for layer in wanted}
    if not shipped:
        raise ConceptLabError(
            f"No dictionary of {lm.name} is shipped; train one per layer with "
            f"`conceptlab train-sae --model {lm.name} --layers N --out data/saes/{lm.name}`."
        )
    return {layer: load_shipped(lm, layer) for layer in (shipped if layers is None else map(lm.check_layer, layers))}


class Erasure:
    """Everything about one concept that several methods share; each part is made when it is first needed.

    `features`: a list by hand, all of which are edited. Without one, the features that the authors published for this
    model and concept, where there are such and `saes` has their layers; else those found. Where there are published
    ones, the grids of tau and mu hold the published setting too, and the published ramp is used. Raises ConceptLabError
    for an empty list, a feature named twice, one that no dictionary has, or an unknown way of finding.
    """

    def __init__(
        self,
        lm: LanguageModel,
        saes: Dictionaries,
        concept: Concept,
        cfg: ErasureConfig,
        seed: int = 0,
        general: Asked | None = None,  # general dev questions as the original answers them, if they are at hand
        features: Sequence[Feature] | None = None,
    ):
        if cfg.finding not in ("reach", "evidence"):
            raise ConceptLabError(f'Features are found by "reach" or by "evidence"; got {cfg.finding!r}.')
        self.lm, self.saes, self.concept, self.cfg, self.seed, self.general = lm, saes, concept, cfg, seed, general
        self.published = published = published_edit(lm, saes, concept.name)
        if features is None and published and {f.layer for f in published.features} <= set(saes):
            features = published.features
        if features is not None:
            hand_picked(lm, saes, [(f.layer, f.index, f.sign) for f in features])  # raises for what cannot be edited
        self.picked = None if features is None else list(features)
        self.ramp = published.ramp if published else cfg.ramp
        self.settings: dict[str, dict[str, float]] = {}  # method -> what was chosen on dev
        self._edits: dict[str, WeightEdit] = {}

    # ---- what the edits need --------------------------------------------------------------------------------
    @cached_property
    def evidence(self) -> Evidence:
        cfg = self.cfg
        return gather_evidence(self.lm, sorted(self.saes), self.concept, cfg.n_evidence, cfg.n_asked, seed=self.seed)

    @cached_property
    def signs(self) -> dict:
        return self.evidence.signs

    @cached_property
    def candidates(self) -> list[Feature]:
        """The features with the most selective edits, before the causal filter; none where no feature fires on it.

        Those picked by hand or published are all there is, in their order.
        """
        cfg = self.cfg
        if self.picked is not None:
            return self._with_reach(self.picked)
        if not self.saes:
            return []
        try:
            if cfg.finding == "evidence":
                found = find_features(
                    self.lm, self.saes, self.concept, cfg.n_candidates, n_texts=cfg.n_evidence, seed=self.seed
                )
                return self._with_reach(found)
            return reaching_features(
                self.lm, self.saes, self.evidence, cfg.n_candidates, cfg.reach_tau, min_share=cfg.min_share
            )
        except ConceptLabError as error:
            print(f"{self.concept.name}: {error}", flush=True)
            return []

    def _with_reach(self, features: Sequence[Feature]) -> list[Feature]:
        """The same features with their reach, which nobody has measured yet."""
        found = {}
        for layer in {f.layer for f in features}:
            index = [f.index for f in features if f.layer == layer]
            reach = edit_reach(self.lm, self.saes[layer], self.evidence, self.cfg.reach_tau, torch.tensor(index))
            found |= {(layer, i): ratio for i, ratio in zip(index, reach.ratio.tolist(), strict=True)}
        return [replace(f, reach=found[f.layer, f.index]) for f in features]

    @cached_property
    def features(self) -> list[Feature]:
        """The candidates that pass the causal filter, those with the strongest effect first; found by "evidence", those
        that pass the three filters of the paper. Where none does, three: those with the strongest effect, or the best
        evidence. Picked ones all stay.
        """
        cfg, candidates = self.cfg, self.candidates
        if not candidates or not cfg.n_questions or self.picked is not None:
            return candidates

        def alone(f: Feature) -> WeightEdit:
            return pisces_edit(self.lm, self.saes, [f], *cfg.probe, self.signs)

        if cfg.finding == "evidence":
            kept = filter_features(self.lm, self.saes, candidates, self.concept, alone, cfg.n_asked, cfg.n_asked).kept
            return list(kept) or candidates[:3]
        single = [alone(f) for f in candidates]
        effects = edit_effects(self.lm, single, self.concept, cfg.n_questions)
        return causal_filter(candidates, effects) or [candidates[i] for i in effects[:, 0].argsort().tolist()[:3]]

    @property
    def edited(self) -> list[Feature]:
        """Those that the chosen PISCES edit changes."""
        self.edit("pisces")
        return self.features[: int(self.settings["pisces"]["n"])]

    @cached_property
    def atoms(self) -> ConceptAtoms:
        return concept_atoms(self.lm, self.concept, self.cfg.ember)

    @cached_property
    def word_atoms(self) -> ConceptAtoms:
        return word_atoms(self.lm, self.concept)

    @cached_property
    def vectors(self) -> list[ConceptVector]:
        return needle_vectors(self.lm, self.concept, max(*self.cfg.needle_n, 20))

    @cached_property
    def judge(self) -> Judge:
        return Judge(self.lm, self.concept, self.cfg.search, self.general)

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
        dev = [str(q) for questions in concept_questions(self.concept, "dev").values() for q in questions]
        what = [self.lm.name, self.concept.name, method, strongest.info, size, axes]
        near = self.concept.neighbour
        texts = [self.concept.words, self.concept.lookalikes, self.concept.texts(), near.texts() if near else []]
        texts.append(self.cfg.n_evidence)
        about = [*what, asdict(self.cfg.search), dev, texts, self.seed]  # no cell of other questions or texts is taken
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]
        path = cache_dir() / "search" / f"{name}.json"
        best = search_settings(self.lm, self.concept, axes, make, self.cfg.search, path, judge=self.judge).best
        self.settings[method] = best.setting | {"passed_gates": float(best.passed)}
        return make(**best.setting)

    def _pisces(self) -> WeightEdit:
        def make(n: float, tau: float, mu: float) -> WeightEdit:
            chosen = self.features[: int(n)]
            return pisces_edit(self.lm, self.saes, chosen, tau, mu, self.signs, ramp=self.ramp)

        return self.chosen("pisces", self._pisces_axes(), make)

    def _pisces_axes(self) -> Axes:
        """The grid of the PISCES edit: that of the configuration, and the published setting where there is one."""
        cfg, published = self.cfg, self.published
        counts = [n for n in cfg.counts if n < len(self.features)] + [min(max(cfg.counts), len(self.features))]
        if self.picked is not None:
            counts = [len(self.picked)]
        taus, mus = cfg.taus, cfg.mus
        if published is not None:
            taus, mus = sorted({*taus, published.tau}, reverse=True), sorted({*mus, published.mu})
        return {"n": counts, "tau": taus, "mu": mus}

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

    def _words(self, both: bool = False) -> WeightEdit:
        axes, side = {"delta": self.cfg.word_deltas}, "both" if both else "input"
        return self.chosen(
            "words_both" if both else "words", axes, lambda delta: embedding_edit(self.lm, self.word_atoms, delta, side)
        )

    def _pisces_words(self, both: bool = False) -> WeightEdit:
        """The chosen edit of the words and, on top of it, the chosen PISCES edit or a weaker one."""
        first, full = self.edit("words_both" if both else "words"), self.edit("pisces")
        n, tau, mu = (self.settings["pisces"][knob] for knob in ("n", "tau", "mu"))

        def make(share: float) -> WeightEdit:
            if share == 1:
                return full + first
            chosen = self.features[: int(n)]
            return pisces_edit(self.lm, self.saes, chosen, tau, share * mu, self.signs, ramp=self.ramp) + first

        return self.chosen("pisces_words_both" if both else "pisces_words", {"share": self.cfg.word_mus}, make)

    def _needle_matched(self) -> WeightEdit:
        """The number of vectors whose loss on known dev questions comes closest to that of PISCES."""
        vectors = needle_vectors(self.lm, self.concept, max(self.cfg.matched_n))
        edits = (needle_edit(self.lm, vectors, n, seed=self.seed) for n in self.cfg.matched_n if n <= len(vectors))
        edit = closest(self._lost, edits, self._lost(self.edit("pisces")), rising=True)
        self.settings["needle_matched"] = {"n": float(edit.info["n"])}
        return edit

    def _lost(self, edit: WeightEdit) -> float:
        """Nats of margin that known dev questions on the concept lose."""
        with edit.applied(self.lm):
            now = score_questions(self.lm, self.judge.questions["target"])
        before = self.judge.base.scores["target"].margin[: len(now.margin)]  # behind them are those asked by a clue
        return float((before - now.margin).mean())

    def _random_words(self, like: str = "words") -> WeightEdit:
        """The edit of the words at the strength, and on the side, chosen for them."""
        info = self.edit(like).info
        drawn = random_word_atoms(self.lm, self.concept, self.word_atoms, self.seed)
        return embedding_edit(self.lm, drawn, float(info["delta"]), info["side"])

    def _random_features(self) -> WeightEdit:
        return random_feature_edit(self.lm, self.saes, self.edited, self.edit("pisces"), self.seed)

    def _random_decoder(self) -> WeightEdit:
        return random_decoder_edit(self.lm, self.saes, self.edited, self.edit("pisces"), self.seed)

    def _random_direction(self) -> WeightEdit:
        return random_direction_edit(self.edit("pisces"), self.seed)

    def _random_norm(self) -> WeightEdit:
        return random_norm_edit(self.edit("pisces"), self.seed)


_BOTH: dict[str, Callable[[Erasure], WeightEdit]] = {
    "words_both": partial(Erasure._words, both=True),
    "pisces_words_both": partial(Erasure._pisces_words, both=True),
    "random_words_both": partial(Erasure._random_words, like="words_both"),
}


_EDITS = {name: _BOTH.get(name) or getattr(Erasure, f"_{name}") for name in METHODS}
