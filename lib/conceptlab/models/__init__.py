"""Language models: loading, sites, options, generation, projection, losses. The only room that knows transformers."""

from .architecture import check_architecture
from .changes import Change, Changes
from .compute import (
    backward_memory,
    choose_device,
    choose_dtype,
    choose_threads,
    memory_free,
    memory_needed,
    optimiser_memory,
    require_training_memory,
    rows_that_fit,
)
from .fingerprint import fingerprint
from .generation import chat_rows, greedy
from .guards import Prompt, Reading, guarded, reading, rewritten, unguarded
from .language_model import LanguageModel
from .load import load_model
from .losses import next_token_loss, scored_logits
from .options import Prefix, branch_logprobs, branch_states, prefix_cache, prefix_ids, repeated, shared_prefix
from .packed import Packed, pack, packed_hidden
from .projection import TopTokens, logit_effect, project
from .random_model import RANDOM_KINDS, random_model
from .registry import PACKAGED, cached_models, encoder_from_folder, packaged_checkpoint, quiet_transformers
from .replaced import layers_replaced
from .sites import SITES, Site

__all__ = [
    "layers_replaced",
    "Change",
    "Changes",
    "LanguageModel",
    "PACKAGED",
    "Packed",
    "Prefix",
    "Prompt",
    "RANDOM_KINDS",
    "Reading",
    "SITES",
    "Site",
    "TopTokens",
    "backward_memory",
    "branch_logprobs",
    "branch_states",
    "cached_models",
    "chat_rows",
    "check_architecture",
    "choose_device",
    "choose_dtype",
    "choose_threads",
    "encoder_from_folder",
    "fingerprint",
    "greedy",
    "guarded",
    "load_model",
    "logit_effect",
    "memory_free",
    "memory_needed",
    "next_token_loss",
    "optimiser_memory",
    "pack",
    "packaged_checkpoint",
    "packed_hidden",
    "prefix_cache",
    "prefix_ids",
    "project",
    "quiet_transformers",
    "random_model",
    "reading",
    "repeated",
    "require_training_memory",
    "rewritten",
    "rows_that_fit",
    "scored_logits",
    "shared_prefix",
    "unguarded",
]
