"""Attacks on an intervention: can what it removed be brought back, at which cost?

Every attack takes a model and an intervention (anything with `.applied(lm)`, or None for the unchanged model) and
leaves the model bit-identical. Results are judged by the same questions as the intervention itself.
"""

from .base import (
    AttackResult,
    Cost,
    Exchange,
    Hits,
    Intervention,
    applied,
    check_no_answers,
    leaked,
    other_facts,
    per_question,
    recovered_share,
    share,
)
from .candidates import CandidateConfig, candidate_sets
from .controls import Fiction, NeverTaught, erased_copies, load_fiction, never_taught, teach
from .finetuned_eraser import EraserConfig, finetuned_eraser, forget_and_keep, npo_loss
from .forms import FormConfig, ask_forms, with_forms
from .gcg import GCGConfig, gcg
from .hidden_knowledge import HiddenKnowledge, hidden_knowledge, pair_ranks
from .lora import lora
from .patching import PatchConfig, patch
from .probing import ProbeConfig, best_layer, probe
from .prompts import PromptConfig, Subject, prompt_attack, subject_of, translatable, translated
from .quantisation import QuantiseConfig, Quantised, quantise, round_to_gguf, round_to_nearest
from .relearning import (
    RelearnConfig,
    fact_texts,
    next_token_loss,
    relearn,
    split_facts,
    text_rows,
    unrelated_texts,
)
from .soft_prompt import SoftPrompt, SoftPromptConfig, soft_prompt
from .suite import (
    QUICK,
    QUICK_BUDGET,
    SUITE,
    Budget,
    Setting,
    floor_of,
    known_questions,
    run_attack,
    setting_for,
    summarise,
)
from .undoing import UndoConfig, undo

__all__ = [
    "QUICK",
    "QUICK_BUDGET",
    "SUITE",
    "AttackResult",
    "Budget",
    "CandidateConfig",
    "Cost",
    "EraserConfig",
    "Exchange",
    "Fiction",
    "FormConfig",
    "GCGConfig",
    "HiddenKnowledge",
    "Hits",
    "Intervention",
    "NeverTaught",
    "PatchConfig",
    "ProbeConfig",
    "PromptConfig",
    "QuantiseConfig",
    "Quantised",
    "RelearnConfig",
    "Setting",
    "SoftPrompt",
    "SoftPromptConfig",
    "Subject",
    "UndoConfig",
    "applied",
    "ask_forms",
    "best_layer",
    "candidate_sets",
    "check_no_answers",
    "erased_copies",
    "fact_texts",
    "finetuned_eraser",
    "floor_of",
    "forget_and_keep",
    "gcg",
    "hidden_knowledge",
    "known_questions",
    "leaked",
    "load_fiction",
    "lora",
    "never_taught",
    "next_token_loss",
    "npo_loss",
    "other_facts",
    "pair_ranks",
    "patch",
    "per_question",
    "probe",
    "prompt_attack",
    "quantise",
    "recovered_share",
    "relearn",
    "round_to_gguf",
    "round_to_nearest",
    "run_attack",
    "setting_for",
    "share",
    "soft_prompt",
    "split_facts",
    "subject_of",
    "summarise",
    "teach",
    "text_rows",
    "translatable",
    "translated",
    "undo",
    "unrelated_texts",
    "with_forms",
]
