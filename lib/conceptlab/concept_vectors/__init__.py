"""Concept vectors: projecting value vectors on the vocabulary, searching, validating."""

from .atlas import Atlas, ConceptVector, all_value_vectors, build_atlas, word_effects
from .coherence import coherence, first_of_stem, plain_words, token_stems, unit_embeddings
from .find import search
from .nulls import (
    coherence_limit,
    control_directions,
    layer_shares,
    promoted_lists,
    readable_layers,
    share_above,
)
from .replay import Replay
from .study import (
    NoiseStudy,
    concept_candidates,
    dose_effects,
    natural_activation,
    noise_study,
    scaled_margins,
    strength_grid,
)
from .validation import (
    answer_shift,
    answer_sizes,
    intrinsic,
    matched_vectors,
    nearest_in_size,
    noise_edit,
    noise_shift,
    random_vectors,
    scale_edit,
    swap_edit,
)

__all__ = [
    "Atlas",
    "ConceptVector",
    "NoiseStudy",
    "Replay",
    "all_value_vectors",
    "answer_shift",
    "answer_sizes",
    "build_atlas",
    "concept_candidates",
    "coherence",
    "coherence_limit",
    "control_directions",
    "first_of_stem",
    "dose_effects",
    "intrinsic",
    "layer_shares",
    "matched_vectors",
    "natural_activation",
    "nearest_in_size",
    "noise_edit",
    "noise_shift",
    "noise_study",
    "plain_words",
    "promoted_lists",
    "random_vectors",
    "readable_layers",
    "scale_edit",
    "scaled_margins",
    "search",
    "token_stems",
    "share_above",
    "strength_grid",
    "swap_edit",
    "unit_embeddings",
    "word_effects",
]
