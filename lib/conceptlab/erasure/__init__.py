"""Erasing a concept from the weights."""

from .controls import random_decoder_edit, random_feature_edit
from .embedding import EmberConfig, embedding_edit
from .finetuning.eraser import EraserConfig, finetuned_eraser, forget_and_keep, npo_loss
from .pisces.attribution import Cost, attribute
from .pisces.candidates import candidates
from .pisces.edit import directional_edit, neuron_signs, pisces_edit, pisces_rows, rows_for, signed_edit
from .pisces.features import (
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
from .pisces.filters import Filtered, ability_filter, activation_filter, causal_filter, filter_features, word_filter
from .pisces.find import activation_means, concept_token_counts, find_features
from .pisces.reach import Evidence, Reach, edit_reach, gather_evidence, reaching_features
from .words import word_atoms
from .workshop import METHODS, WITHOUT_FEATURES, Erasure, ErasureConfig, shipped_dictionaries
from .zeroed import needle_edit, needle_vectors

__all__ = [
    "Cost",
    "Dictionaries",
    "EmberConfig",
    "EraserConfig",
    "Erasure",
    "ErasureConfig",
    "Evidence",
    "Feature",
    "Filtered",
    "METHODS",
    "PUBLIC",
    "PUBLISHED",
    "PublicDictionaries",
    "PublishedEdit",
    "Reach",
    "WITHOUT_FEATURES",
    "ability_filter",
    "activation_filter",
    "activation_means",
    "attribute",
    "candidates",
    "causal_filter",
    "concept_token_counts",
    "directional_edit",
    "edit_reach",
    "embedding_edit",
    "filter_features",
    "find_features",
    "finetuned_eraser",
    "forget_and_keep",
    "gather_evidence",
    "hand_picked",
    "needle_edit",
    "needle_vectors",
    "neuron_signs",
    "npo_loss",
    "pisces_edit",
    "pisces_rows",
    "public_dictionaries",
    "published_edit",
    "random_decoder_edit",
    "random_feature_edit",
    "random_features",
    "reaching_features",
    "rows_for",
    "shipped_dictionaries",
    "signed_edit",
    "word_atoms",
    "word_filter",
]
