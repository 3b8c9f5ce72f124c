"""Attacks on an intervention: can what it removed be brought back, at which cost?

Every attack takes a model and an intervention (anything with `.applied(lm)`, or None for the unchanged model) and
leaves the model bit-identical. Results are judged by the same questions as the intervention itself.
"""

from .antidote import WAYS_TO_PRUNE, AntidoteConfig, antidote, prune_after_relearning
from .base import AttackResult, Cost, Exchange, Hits, per_question, share
from .clamped import ClampedConfig, ClampedResult, Detour, clamped, detour, held_directions
from .forms import FormConfig, ask_forms, with_forms
from .gcg import GCGConfig, SuffixObjective, gcg, gcg_step, suffix_tokens
from .hidden_knowledge import HiddenKnowledge, hidden_knowledge, pair_ranks
from .logit_lens import CandidateConfig, candidate_sets
from .never_taught import TEACHING, NeverTaught, erased_copies, never_taught, teach
from .patching import PatchConfig, patch
from .probing import ProbeConfig, best_layer, probe
from .prompts import PromptConfig, prompt_attack
from .quantisation import GGUF_TYPES, QuantiseConfig, Quantised, quantise, round_to_gguf, round_to_nearest
from .rates import Rates, borne_rate, rates_of
from .relearning import RelearnConfig, relearn
from .setting import Budget, Setting, known_questions, setting_for
from .soft_prompt import SoftPrompt, SoftPromptConfig, soft_prompt
from .suite import (
    COUNTED,
    MEASURES,
    QUICK,
    QUICK_BUDGET,
    SUITE,
    Attack,
    attacks,
    floor_of,
    register_attack,
    run_attack,
    summarise,
)
from .undoing import UndoConfig, undo

__all__ = [
    "AntidoteConfig",
    "Attack",
    "AttackResult",
    "Budget",
    "COUNTED",
    "CandidateConfig",
    "ClampedConfig",
    "ClampedResult",
    "Cost",
    "Detour",
    "Exchange",
    "FormConfig",
    "GCGConfig",
    "GGUF_TYPES",
    "HiddenKnowledge",
    "Hits",
    "MEASURES",
    "NeverTaught",
    "PatchConfig",
    "ProbeConfig",
    "PromptConfig",
    "QUICK",
    "QUICK_BUDGET",
    "QuantiseConfig",
    "Quantised",
    "Rates",
    "RelearnConfig",
    "SUITE",
    "Setting",
    "SoftPrompt",
    "SoftPromptConfig",
    "SuffixObjective",
    "TEACHING",
    "UndoConfig",
    "WAYS_TO_PRUNE",
    "antidote",
    "ask_forms",
    "attacks",
    "best_layer",
    "borne_rate",
    "candidate_sets",
    "clamped",
    "detour",
    "erased_copies",
    "floor_of",
    "gcg",
    "gcg_step",
    "held_directions",
    "hidden_knowledge",
    "known_questions",
    "never_taught",
    "pair_ranks",
    "patch",
    "per_question",
    "probe",
    "prompt_attack",
    "prune_after_relearning",
    "quantise",
    "rates_of",
    "register_attack",
    "relearn",
    "round_to_gguf",
    "round_to_nearest",
    "run_attack",
    "setting_for",
    "share",
    "soft_prompt",
    "suffix_tokens",
    "summarise",
    "teach",
    "undo",
    "with_forms",
]
