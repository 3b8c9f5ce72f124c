"""PISCES: find the features that carry a concept, and write them out of the MLP weights (Gur-Arieh et al. 2025).

A feature is a row `d = W_dec[f]` of a dictionary of MLP outputs; the rows of `lm.down_proj(layer)`, one per neuron,
live in the same space. `find_features` proposes, the filters dispose, an edit writes, `attribute` says what each part
of it costs.
"""

from .attribution import Cost, attribute
from .candidates import candidates
from .edit import directional_edit, neuron_signs, pisces_edit, pisces_rows, rows_for, signed_edit
from .features import (
    PUBLIC,
    PUBLISHED,
    Dictionaries,
    Feature,
    PublicDictionaries,
    PublishedEdit,
    hand_picked,
    public_dictionaries,
    published_edit,
    random_features,
)
from .filters import Filtered, ability_filter, activation_filter, causal_filter, filter_features, word_filter
from .find import activation_means, concept_token_counts, evidence_texts, find_features
from .reach import Evidence, Reach, edit_reach, gather_evidence, reaching_features

__all__ = [
    "PUBLIC",
    "PUBLISHED",
    "Cost",
    "Dictionaries",
    "Evidence",
    "Feature",
    "Filtered",
    "PublicDictionaries",
    "PublishedEdit",
    "Reach",
    "ability_filter",
    "activation_filter",
    "activation_means",
    "attribute",
    "candidates",
    "causal_filter",
    "concept_token_counts",
    "directional_edit",
    "edit_reach",
    "evidence_texts",
    "filter_features",
    "find_features",
    "gather_evidence",
    "hand_picked",
    "neuron_signs",
    "pisces_edit",
    "pisces_rows",
    "public_dictionaries",
    "published_edit",
    "random_features",
    "reaching_features",
    "rows_for",
    "signed_edit",
    "word_filter",
]
