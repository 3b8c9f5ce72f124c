"""Measuring what a model knows, and what an intervention did to it."""

from .comparison import Comparison, SetChange, compare, compare_writing, harmonic_mean, relative_accuracy
from .depth import Depth, DepthBase, DepthConfig, answer_states, depth, depth_base, depth_scores, unasked
from .fluency import Fluency, fluency
from .forms import FORMS, has_form, score_form, score_forms
from .overshoot import Overshoot, overshoot
from .questions import (
    Asked,
    QuestionScores,
    ask,
    check_questions,
    gold_logprobs,
    guess_corrected,
    score_questions,
    score_stems,
)
from .residue import Residue, Trace, residue, trace, vector_residue, write_energy
from .scorecard import SETS, Scorecard, concept_questions, edit_effects, score_sets, scorecard
from .strength import Judge, Search, SearchConfig, Trial, closest, search_settings
from .writing import Behaviour, behaviour

__all__ = [
    "Asked",
    "Behaviour",
    "Trial",
    "SetChange",
    "Comparison",
    "Depth",
    "DepthBase",
    "DepthConfig",
    "FORMS",
    "Fluency",
    "Judge",
    "Overshoot",
    "QuestionScores",
    "Residue",
    "SETS",
    "Scorecard",
    "Search",
    "SearchConfig",
    "Trace",
    "answer_states",
    "ask",
    "behaviour",
    "check_questions",
    "closest",
    "compare",
    "compare_writing",
    "concept_questions",
    "depth",
    "depth_base",
    "depth_scores",
    "edit_effects",
    "fluency",
    "gold_logprobs",
    "guess_corrected",
    "harmonic_mean",
    "has_form",
    "overshoot",
    "relative_accuracy",
    "residue",
    "score_form",
    "score_forms",
    "score_questions",
    "score_sets",
    "score_stems",
    "scorecard",
    "search_settings",
    "trace",
    "unasked",
    "vector_residue",
    "write_energy",
]
