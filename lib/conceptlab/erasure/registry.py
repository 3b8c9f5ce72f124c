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
from .localised.distil import DISTIL, DISTIL_SHUFFLED
from .localised.elm import ELM
from .localised.lookup import LOOKUP
from .localised.memit import ALPHAEDIT, MEMIT
from .localised.needle import NEEDLE
from .localised.read_side import READ_SIDE, READ_SIDE_PISCES
from .localised.remap import RANDOM_TARGETS, ROCR
from .localised.rmu import RMU, RMU_ABLATION
from .localised.snmf import SNMF, SNMF_PERMUTED
from .localised.ssd import SSD
from .localised.tars import TARS
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
    RMU,
    RMU_ABLATION,
    SSD,
    ELM,
    TARS,
    MEMIT,
    ALPHAEDIT,
    ROCR,
    NEEDLE,
    READ_SIDE,
    READ_SIDE_PISCES,
    LOOKUP,
    SNMF,
    DISTIL,
    RANDOM_TARGETS,
    SNMF_PERMUTED,
    DISTIL_SHUFFLED,
    OTHER_FEATURES,
    PERMUTED_NEURONS,
    FROZEN_DECODER,
    RANDOM_FEATURES,
    RANDOM_DIRECTION,
    RANDOM_NORM,
    RANDOM_WORDS,
    RANDOM_WORDS_BOTH,
)
