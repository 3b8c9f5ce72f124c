"""How the parts that methods share are made, and the dictionaries that they stand on unless others are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..core import ConceptLabError
from ..data import FORMS
from ..evaluation import SearchConfig
from ..models import LanguageModel
from ..sae import load_sae, load_shipped, saes_folder, shipped_layers
from .method import Axes
from .pisces.features import Dictionaries, public_dictionaries


@dataclass(frozen=True)
class SharedConfig:
    """How the parts are made, and how strengths are judged."""

    n_evidence: int = 24  # texts each of concept, neighbour and background that the features are found on
    n_asked: int = 24  # and answered dev questions of each, the first ones; strengths are chosen on the last ones (of a
    # file with less than 56 some serve both)
    finding: str = "reach"  # or "evidence": by what features read and write (`find_features`), with the paper's filters
    reach_tau: float = 0.5  # tau at which the features' reach is compared
    min_share: float = 2.0  # for "reach": a feature fires on the concept so many times as strongly as elsewhere
    n_candidates: int = 12  # features with the most selective edits; the filter tries them one by one
    probe: tuple[float, float] = (0.5, 8.0)  # tau and mu at which the filter judges single features
    n_questions: int = 6  # dev questions per set in the causal filter; 0: no filter
    n_texts: int = 60  # texts each to forget and to keep, for methods that train
    forms: tuple[str, ...] = ("question",)  # in which the shown facts stand among the texts to forget
    leads: bool = True  # whether leads on the concept stand there as well; without them only the facts do
    search: SearchConfig = SearchConfig(n_questions=16, n_asked=32, n_clues=12, n_texts=4)
    grids: Mapping[str, Axes] = field(default_factory=dict)  # method -> knobs in place of its own

    def __post_init__(self) -> None:
        if self.finding not in ("reach", "evidence"):
            raise ConceptLabError(f'Features are found by "reach" or by "evidence"; got {self.finding!r}.')
        if self.n_candidates < 1 or not 0 <= self.reach_tau < 1 or not self.min_share > 0:
            raise ConceptLabError(
                "Features are found with n_candidates of at least 1, reach_tau from 0 to below 1 and min_share above "
                f"0; got {self.n_candidates}, {self.reach_tau:g} and {self.min_share:g}."
            )
        if not self.forms or not set(self.forms) <= set(FORMS):
            raise ConceptLabError(f"Facts are shown in one or more of {', '.join(FORMS)}; got {self.forms!r}.")


def shipped_dictionaries(lm: LanguageModel, layers: Sequence[int] | None = None, seed: int = 0) -> Dictionaries:
    """layer -> dictionary: the shipped ones of some layers, or of every layer that has one.

    Where nothing is shipped for a model, the public ones that the authors of PISCES used with it (`PUBLIC`), the same
    files as they did: by default of the layers that are named there. `seed`: another than 0 takes the dictionaries that
    `make saes SEED=...` has trained, of all layers. Raises ConceptLabError when there are neither, for
    a layer that the model or the shipped ones do not have, and where the Hub cannot be reached.
    """
    if seed and not shipped_layers(lm.name, saes_folder(seed)):
        raise ConceptLabError(f"There are no dictionaries of seed {seed} for {lm.name}; run `make saes SEED={seed}`.")
    root = saes_folder(seed)
    shipped = shipped_layers(lm.name, root)
    public = None if shipped else public_dictionaries(lm.name)
    if public is not None:
        wanted = [lm.check_layer(layer) for layer in (public.layers if layers is None else layers)]
        return {layer: load_sae(public.repository, layer, public.names[layer], lm=lm) for layer in wanted}
    if not shipped:
        raise ConceptLabError(
            f"No dictionary of {lm.name} is shipped; train one per layer with "
            f"`conceptlab train-sae --model {lm.name} --layers N --out data/saes/{lm.name}`."
        )
    chosen = shipped if layers is None else tuple(map(lm.check_layer, layers))
    return {layer: load_shipped(lm, layer, root) for layer in chosen}
