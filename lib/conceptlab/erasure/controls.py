"""Controls of a PISCES edit that know nothing of the concept: random features, and the same rows along others."""

from __future__ import annotations

from collections.abc import Sequence

from ..edits import LowRank, WeightEdit, match_norms
from ..models import LanguageModel
from .pisces.edit import columns_for, directional_edit, rows_for
from .pisces.features import Dictionaries, Feature, by_layer, random_features


def random_feature_edit(
    lm: LanguageModel, saes: Dictionaries, features: Sequence[Feature], like: WeightEdit, seed: int = 0
) -> WeightEdit:
    """A control: as many random features of the same layers, turned round, with the norms per layer of `like`.

    Directional, because the published edit may touch hardly any row for a feature that no neuron writes, and scaling
    such an edit up to the norm of `like` would test a few rows instead of random features.
    """
    drawn = random_features(saes, features, seed)
    edit = match_norms(directional_edit(lm, saes, drawn, 2.0), like)
    return WeightEdit(lm.name, edit.changes, edit.info | {"control": "random features", "seed": seed})


def random_decoder_edit(
    lm: LanguageModel, saes: Dictionaries, features: Sequence[Feature], like: WeightEdit, seed: int = 0
) -> WeightEdit:
    """A control: the PISCES edit `like` of `features`, but every change is written along another feature's direction.

    Rows and coefficients stay, and so does everything that directions of a dictionary have in common: one for many
    rows, in the subspace that the layer writes. What is left of the effect is not due to *these* features' directions.
    """
    changes = {}
    for layer, drawn in by_layer(lm, saes, random_features(saes, features, seed)).items():
        change = like.changes[lm.down_proj_name(layer)]
        d = saes[layer].W_dec[[f.index for f in drawn]].to(rows_for(lm, saes[layer]))
        changes[lm.down_proj_name(layer)] = LowRank(columns_for(lm, saes[layer], d), change.right)
    return WeightEdit(like.model, changes, {"control": "directions of random features", "seed": seed})
