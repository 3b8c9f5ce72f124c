"""Controls: edits that keep all of another edit but one thing.

Of the size of PISCES, without a knob: `random_features` (turned round), `other_features` (the same rows and
coefficients, written along other features), `permuted_neurons` (the same changes at other neurons that are as active
on the concept), `random_direction` (the same rows), `random_norm` (random rows). Of the words: as many others.
`frozen_decoder` is PISCES itself, tuned as hard, in a dictionary whose decoder is random (arXiv 2602.14111).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ..core import NotPossible
from ..data import Concept, mixture, token_rows
from ..edits import LowRank, WeightEdit, match_norms, permuted_neurons, random_direction_edit, random_norm_edit
from ..models import LanguageModel
from ..sae import TrainConfig, cached_dictionaries
from .embedding import embedding_edit
from .method import Axes, Method
from .pisces.edit import columns_for, directional_edit, rows_for
from .pisces.features import Dictionaries, Feature, by_layer, random_features
from .pisces.method import PISCES, PiscesConfig, fit_pisces, pisces_axes
from .words import random_word_atoms

if TYPE_CHECKING:
    from .shared import Shared


def random_features_edit(
    lm: LanguageModel, saes: Dictionaries, features: Sequence[Feature], like: WeightEdit, seed: int = 0
) -> WeightEdit:
    """A control: as many random features of the same layers, turned round, with the norms per layer of `like`.

    Directional, because the published edit may touch hardly any row for a feature that no neuron writes, and scaling
    such an edit up to the norm of `like` would test a few rows instead of random features.
    """
    drawn = random_features(saes, features, seed)
    edit = match_norms(directional_edit(lm, saes, drawn, 2.0), like)
    return replace(edit, info=edit.info | {"control": "random features", "seed": seed})


def other_features_edit(
    lm: LanguageModel, saes: Dictionaries, features: Sequence[Feature], like: WeightEdit, seed: int = 0
) -> WeightEdit:
    """A control: the PISCES edit `like` of `features`, but every change is written along another feature's direction.

    Rows and coefficients stay, and so does everything that directions of a dictionary have in common: one for many
    rows, in the subspace that the layer writes. What is left of the effect is not due to *these* features' directions.
    """
    changes = {}
    for layer, drawn in by_layer(lm, saes, random_features(saes, features, seed)).items():
        change = like.changes[lm.down_proj_name(layer)]
        assert isinstance(change, LowRank)  # as `pisces_edit` makes them
        index = torch.tensor([f.index for f in drawn], device=saes[layer].W_dec.device)
        d = saes[layer].directions(index).to(rows_for(lm, saes[layer]))
        changes[lm.down_proj_name(layer)] = LowRank(columns_for(lm, saes[layer], d), change.right)
    return replace(like, changes=changes, info={"control": "directions of random features", "seed": seed})


# ---- methods ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ControlConfig:
    """Which edit the control has the size of."""

    like: str = "pisces"


def fit_random_features(lm: LanguageModel, concept: Concept, config: ControlConfig, shared: Shared) -> WeightEdit:
    like = shared.chosen(config.like).edit
    return random_features_edit(lm, shared.dictionaries, shared.edited, like, shared.seed)


def fit_other_features(lm: LanguageModel, concept: Concept, config: ControlConfig, shared: Shared) -> WeightEdit:
    like = shared.chosen(config.like).edit
    return other_features_edit(lm, shared.dictionaries, shared.edited, like, shared.seed)


def fit_permuted_neurons(lm: LanguageModel, concept: Concept, config: ControlConfig, shared: Shared) -> WeightEdit:
    """The chosen edit's changes at other neurons of the layer, as active at tokens of the concept's texts."""
    like, own = shared.chosen(config.like).edit, shared.evidence.own
    activity = {layer: torch.cat(groups[:own]).abs().mean(0) for layer, groups in shared.evidence.neurons.items()}
    if max(int((c.dense().abs().amax(0) > 0).sum()) for c in like.changes.values()) > lm.d_mlp // 2:
        raise NotPossible("The edit goes through more than half of a layer's neurons, so there are too few others.")
    return permuted_neurons(lm, like, activity, shared.seed)


def fit_random_direction(lm: LanguageModel, concept: Concept, config: ControlConfig, shared: Shared) -> WeightEdit:
    return random_direction_edit(shared.chosen(config.like).edit, shared.seed)


def fit_random_norm(lm: LanguageModel, concept: Concept, config: ControlConfig, shared: Shared) -> WeightEdit:
    return random_norm_edit(shared.chosen(config.like).edit, shared.seed)


def fit_random_words(lm: LanguageModel, concept: Concept, config: ControlConfig, shared: Shared) -> WeightEdit:
    """Other words at the strength, and on the side, chosen for the concept's."""
    like = shared.chosen(config.like).config
    drawn = shared.made("random_words", lambda: random_word_atoms(lm, concept, shared.word_atoms, shared.seed))
    return embedding_edit(lm, drawn, like.delta, like.side)


def _control(name: str, source: str, fit: Callable, like: str = "pisces", *needs: str) -> Method:
    return Method(name, "control", f"ours: {source}", ControlConfig(like), fit, needs=(like, *needs))


# ---- a random decoder -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class FrozenConfig:
    """PISCES' strength, and how the dictionary with the random decoder is trained."""

    n: int = 5  # features that are edited, at most
    tau: float = 0.5  # share of the largest projection that a row must exceed
    mu: float = 10.0  # strength, in largest projections of the layer
    n_tokens: int = 100_000  # of the text mixture, at n_ctx 128
    train: TrainConfig = TrainConfig(
        architecture="batchtopk", steps=400, batch_size=512, lr=2.5e-3, freeze_decoder=True
    )  # as wide and as sparse as the dictionaries that ship


def frozen_parts(shared: Shared, config: FrozenConfig) -> Shared:
    """The same parts with dictionaries of random decoders, one for each layer that the chosen PISCES edit changes."""
    lm, layers = shared.lm, sorted({f.layer for f in shared.edited})

    def make() -> Dictionaries:
        rows = token_rows(lm, mixture()[0], n_tokens=config.n_tokens)
        return cached_dictionaries(lm, rows, layers, replace(config.train, seed=shared.seed))

    return shared.of_others(("frozen_decoder", config.n_tokens, config.train), make)


def fit_frozen_decoder(lm: LanguageModel, concept: Concept, config: FrozenConfig, shared: Shared) -> WeightEdit:
    """Features found and edited as PISCES does, in dictionaries that learnt where to look but not what to write."""
    strength = PiscesConfig(config.n, config.tau, config.mu)
    return fit_pisces(lm, concept, strength, frozen_parts(shared, config))


def frozen_axes(axes: Axes, shared: Shared) -> Axes:
    """PISCES' grid for the features that there are."""
    return pisces_axes(axes, frozen_parts(shared, FROZEN_DECODER.config))


FROZEN_DECODER = Method(
    "frozen_decoder",
    "control",
    "a dictionary whose decoder stays random while its encoder is trained (arXiv 2602.14111); then PISCES",
    FrozenConfig(),
    fit_frozen_decoder,
    PISCES.knobs,
    needs=("pisces",),
    cost="3 min of training a model and layer, kept in the cache",
    axes=frozen_axes,
)
RANDOM_FEATURES = _control("random_features", "random features turned round, norms per layer", fit_random_features)
OTHER_FEATURES = _control("other_features", "the same rows along other features' directions", fit_other_features)
PERMUTED_NEURONS = _control("permuted_neurons", "the same changes at neurons as active", fit_permuted_neurons)
RANDOM_DIRECTION = _control("random_direction", "the same rows along random directions", fit_random_direction)
RANDOM_NORM = _control("random_norm", "random rows and directions of the same norms", fit_random_norm)
RANDOM_WORDS = _control("random_words", "other words of the same frequency", fit_random_words, "words")
RANDOM_WORDS_BOTH = _control("random_words_both", "the same on both sides", fit_random_words, "words_both")
