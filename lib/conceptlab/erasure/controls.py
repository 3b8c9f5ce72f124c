"""Controls of the size of another edit that know nothing of the concept, as methods without a knob.

Of PISCES: `random_features` (turned round), `other_features` (the same rows and coefficients, written along other
features), `random_direction` (the same rows), `random_norm` (random rows). Of the words: as many others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ..data import Concept
from ..edits import LowRank, WeightEdit, match_norms, random_direction_edit, random_norm_edit
from ..models import LanguageModel
from .embedding import embedding_edit
from .method import Method
from .pisces.edit import columns_for, directional_edit, rows_for
from .pisces.features import Dictionaries, Feature, by_layer, random_features
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


RANDOM_FEATURES = _control("random_features", "random features turned round, norms per layer", fit_random_features)
OTHER_FEATURES = _control("other_features", "the same rows along other features' directions", fit_other_features)
RANDOM_DIRECTION = _control("random_direction", "the same rows along random directions", fit_random_direction)
RANDOM_NORM = _control("random_norm", "random rows and directions of the same norms", fit_random_norm)
RANDOM_WORDS = _control("random_words", "other words of the same frequency", fit_random_words, "words")
RANDOM_WORDS_BOTH = _control("random_words_both", "the same on both sides", fit_random_words, "words_both")
