"""Every method of the library, one line each; other packages add theirs by `register` or an entry point."""

from .combined import PISCES_EMBEDDING, PISCES_WORDS, PISCES_WORDS_BOTH
from .controls import (
    FROZEN_DECODER,
    OTHER_FEATURES,
    PERMUTED_NEURONS,
    RANDOM_DIRECTION,
    RANDOM_FEATURES,
    RANDOM_NORM,
    RANDOM_WORDS,
    RANDOM_WORDS_BOTH,
)
from .embedding import EMBEDDING
from .finetuning import (
    CONTINUAL,
    DPO,
    FLAT,
    GA_KL,
    GRADIENT_ASCENT,
    GRADIENT_DIFFERENCE,
    IHL,
    LOKU,
    NPO,
    NPO_ALONE,
    NPO_KL,
    POISONING,
    R_TUNING,
    REFUSAL,
    SIMNPO,
    TASK_VECTOR,
)
from .inference import ECO, GUARD, IN_CONTEXT_REFUSAL, NOTES, ULD
from .method import Method
from .pisces.method import DIRECTIONAL, PISCES
from .words import WORDS, WORDS_BOTH
from .zeroed import ZEROED, ZEROED_MATCHED

METHODS: tuple[Method, ...] = (
    PISCES,
    DIRECTIONAL,
    WORDS,
    WORDS_BOTH,
    EMBEDDING,
    PISCES_WORDS,
    PISCES_WORDS_BOTH,
    PISCES_EMBEDDING,
    ZEROED,
    ZEROED_MATCHED,
    GRADIENT_ASCENT,
    GRADIENT_DIFFERENCE,
    GA_KL,
    NPO,
    NPO_ALONE,
    NPO_KL,
    SIMNPO,
    DPO,
    REFUSAL,
    R_TUNING,
    IHL,
    LOKU,
    FLAT,
    TASK_VECTOR,
    ECO,
    ULD,
    GUARD,
    NOTES,
    IN_CONTEXT_REFUSAL,
    POISONING,
    CONTINUAL,
    OTHER_FEATURES,
    PERMUTED_NEURONS,
    FROZEN_DECODER,
    RANDOM_FEATURES,
    RANDOM_DIRECTION,
    RANDOM_NORM,
    RANDOM_WORDS,
    RANDOM_WORDS_BOTH,
)
