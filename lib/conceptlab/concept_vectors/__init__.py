"""Concept vectors: projecting value vectors on the vocabulary, searching, validating."""

from .atlas import Atlas, ConceptVector, all_value_vectors, build_atlas, word_effects
from .coherence import coherence, first_of_stem, plain_words, token_stems, unit_embeddings
from .find import search
from .replay import Replay
from .validation import intrinsic, matched_vectors, noise_edit, noise_shift, random_vectors, scale_edit

__all__ = [
    "Atlas",
    "ConceptVector",
    "Replay",
    "all_value_vectors",
    "build_atlas",
    "coherence",
    "first_of_stem",
    "intrinsic",
    "matched_vectors",
    "noise_edit",
    "noise_shift",
    "plain_words",
    "random_vectors",
    "scale_edit",
    "search",
    "token_stems",
    "unit_embeddings",
    "word_effects",
]
