"""Language models: loading, sites, options, generation, projection, losses. The only room that knows transformers."""

from .changes import Change, Changes
from .fingerprint import fingerprint
from .generation import chat_rows, greedy
from .language_model import LanguageModel, load_model
from .losses import next_token_loss, sequence_logprobs
from .options import Prefix, branch_logprobs, branch_states, prefix_cache, prefix_ids, repeated, shared_prefix
from .projection import TopTokens, logit_effect, project
from .registry import PACKAGED, encoder_from_folder, packaged_checkpoint, quiet_transformers
from .sites import Site

__all__ = [
    "Change",
    "Changes",
    "LanguageModel",
    "PACKAGED",
    "Prefix",
    "Site",
    "TopTokens",
    "branch_logprobs",
    "branch_states",
    "chat_rows",
    "encoder_from_folder",
    "fingerprint",
    "greedy",
    "load_model",
    "logit_effect",
    "next_token_loss",
    "packaged_checkpoint",
    "prefix_cache",
    "prefix_ids",
    "project",
    "quiet_transformers",
    "repeated",
    "sequence_logprobs",
    "shared_prefix",
]
