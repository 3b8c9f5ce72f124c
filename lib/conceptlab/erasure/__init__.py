"""Erasing a concept: one file per method, one interface (`method.py`), one registry (`methods()`).

`shared = Shared(lm, concept)`, then `choose("pisces", lm, concept, shared)` is the edit at the strength chosen on dev.
"""

from .combined import PISCES_EMBEDDING, PISCES_WORDS, PISCES_WORDS_BOTH
from .controls import OTHER_FEATURES, other_features_edit, random_features_edit
from .embedding import EMBEDDING, EmberConfig, embedding_edit
from .finetuning import GRADIENT_DIFFERENCE, NPO, EraserConfig, finetuned_eraser, npo_loss
from .method import KINDS, SETTINGS, Fitted, Method, choose, get_method, grid, methods, needs_dictionaries, register
from .pisces.attribution import FeatureEffect, attribute
from .pisces.candidates import candidates
from .pisces.edit import (
    ablation_edit,
    directional_edit,
    neuron_signs,
    pisces_edit,
    pisces_rows,
    rows_for,
    signed_edit,
)
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
from .pisces.method import DIRECTIONAL, PISCES, PiscesConfig
from .pisces.reach import Evidence, Reach, edit_reach, gather_evidence, reaching_features
from .shared import Shared, SharedConfig, shipped_dictionaries
from .words import WORDS, WORDS_BOTH, word_atoms
from .zeroed import ZEROED, ZEROED_MATCHED, promoting_vectors, zeroed_edit

__all__ = [
    "DIRECTIONAL",
    "Dictionaries",
    "EMBEDDING",
    "EmberConfig",
    "EraserConfig",
    "Evidence",
    "Feature",
    "FeatureEffect",
    "Filtered",
    "Fitted",
    "GRADIENT_DIFFERENCE",
    "KINDS",
    "Method",
    "NPO",
    "OTHER_FEATURES",
    "PISCES",
    "PISCES_EMBEDDING",
    "PISCES_WORDS",
    "PISCES_WORDS_BOTH",
    "PUBLIC",
    "PUBLISHED",
    "PiscesConfig",
    "PublicDictionaries",
    "PublishedEdit",
    "Reach",
    "SETTINGS",
    "Shared",
    "SharedConfig",
    "WORDS",
    "WORDS_BOTH",
    "ZEROED",
    "ZEROED_MATCHED",
    "ability_filter",
    "ablation_edit",
    "activation_filter",
    "activation_means",
    "attribute",
    "candidates",
    "causal_filter",
    "choose",
    "concept_token_counts",
    "directional_edit",
    "edit_reach",
    "embedding_edit",
    "filter_features",
    "find_features",
    "finetuned_eraser",
    "gather_evidence",
    "get_method",
    "grid",
    "hand_picked",
    "methods",
    "needs_dictionaries",
    "neuron_signs",
    "npo_loss",
    "other_features_edit",
    "pisces_edit",
    "pisces_rows",
    "promoting_vectors",
    "public_dictionaries",
    "published_edit",
    "random_features",
    "random_features_edit",
    "reaching_features",
    "register",
    "rows_for",
    "shipped_dictionaries",
    "signed_edit",
    "word_atoms",
    "word_filter",
    "zeroed_edit",
]
