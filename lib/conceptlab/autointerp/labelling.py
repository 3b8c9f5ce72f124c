"""Everything that labelling the units of one layer needs, made once; features and controls go through it alike."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from ..core import ConceptLabError
from ..data import Article, Harvest
from ..models import LanguageModel
from ..sae import SAE
from .controls import Units
from .examples import Corpus, UnitExamples, unit_examples
from .explain import EnsembleExplainer, InputExplainer, Label, OutputExplainer, background_examples
from .firings import often_enough, sae_firings, sample_by_rate
from .steer import risen_tokens


@dataclass(frozen=True)
class LabelConfig:
    """How a dictionary is labelled. Sizes as in notebook 03, where not said otherwise."""

    n: int = 200  # features per layer, besides those that are asked for by number
    seed: int = 0  # choice of features, texts, halves and contexts
    least: int = 80  # firings in each half that a feature must have to be chosen
    n_label: int = 300  # contexts of each kind from which a label is made
    n_score: int = 100  # contexts of each kind on which it is scored
    n_background: int = 2_000  # random tokens that the firing contexts are compared with
    n_resamples: int = 1_000  # of every interval
    chunk: int = 50  # features that are labelled, scored and kept together; foreign labels come from the same chunk

    def __post_init__(self):
        small = {
            "n": 2,
            "seed": 0,
            "least": 1,
            "n_label": 1,
            "n_score": 1,
            "n_background": 1,
            "n_resamples": 1,
            "chunk": 2,
        }
        for name, low in small.items():
            if getattr(self, name) < low:
                raise ConceptLabError(f"Labelling: {name} must be at least {low}; got {getattr(self, name)}.")


@dataclass(frozen=True)
class Labelled:
    """Units with their examples and the labels of the three rule-based explainers, all lists in the same order."""

    places: list[int]  # which of the `Units` they are: those that fire strongly in both halves
    seen: list[UnitExamples]  # from the labelling half
    new: list[UnitExamples]  # from the scoring half
    reads: list[Label]  # input side
    writes: list[Label]  # output side
    ensemble: list[Label]


class Labelling:
    """One layer: its dictionary, the texts in two halves, the background, and where the features fire."""

    def __init__(
        self, lm: LanguageModel, sae: SAE, data: Harvest, articles: Sequence[Article], cfg: LabelConfig = LabelConfig()
    ):
        self.lm, self.sae, self.data, self.cfg, self.layer = lm, sae, data, cfg, sae.cfg.hook_layer
        self.corpus = Corpus(lm, data)
        self.halves = self.corpus.halves(cfg.seed)
        background = background_examples(self.corpus, self.halves[0], cfg.n_background, cfg.seed)
        self.reader = InputExplainer(background, articles)
        self.firings = sae_firings(sae, data.tensor(self.layer))
        self.directions = sae.residual_directions(lm)

    def choose(self, listed: Sequence[int] = ()) -> list[int]:
        """`cfg.n` features by rate (all, where fewer fire often enough) and the listed ones, ascending."""
        for feature in listed:
            self.firings.of(feature)  # raises for a number that does not exist
        n = min(self.cfg.n, len(often_enough(self.firings, self.halves, self.cfg.least)))
        chosen = sample_by_rate(self.firings, self.halves, n, least=self.cfg.least, seed=self.cfg.seed)
        return sorted({*chosen, *listed})

    def label(self, units: Units) -> Labelled:
        """Examples and labels of some units, those left out that never fire strongly in one half of the texts."""
        risen = risen_tokens(self.lm, self.layer, units.directions[list(units.units)])
        steered = {unit: ids.tolist() for unit, ids in zip(units.units, risen, strict=True)}
        both = EnsembleExplainer(self.reader, OutputExplainer(self.lm, units.directions, steered=steered))
        found = Labelled([], [], [], [], [], [])
        for place, unit in enumerate(units.units):
            with suppress(ConceptLabError):
                seen, new = (self._examples(units, unit, half) for half in (0, 1))
                found.places.append(place)
                found.seen.append(seen)
                found.new.append(new)
        for seen in found.seen:
            found.reads.append(both.reader.explain(seen))
            found.writes.append(both.writer.explain(seen))
            found.ensemble.append(both.combine(found.reads[-1], found.writes[-1], seen))
        return found

    def _examples(self, units: Units, unit: int, half: int) -> UnitExamples:
        n = (self.cfg.n_label, self.cfg.n_score)[half]
        return unit_examples(self.corpus, units.firings, unit, self.halves[half], n, seed=self.cfg.seed + half)
