"""Measuring what a model knows, and what an intervention did to it."""

from .comparison import Comparison, SetChange, compare, compare_writing, harmonic_mean, relative_accuracy
from .fluency import Fluency, fluency
from .forms import FORMS, has_form, score_form, score_forms
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
    "FORMS",
    "Fluency",
    "Judge",
    "QuestionScores",
    "Residue",
    "SETS",
    "Scorecard",
    "Search",
    "SearchConfig",
    "Trace",
    "ask",
    "behaviour",
    "check_questions",
    "closest",
    "compare",
    "compare_writing",
    "concept_questions",
    "edit_effects",
    "fluency",
    "gold_logprobs",
    "guess_corrected",
    "harmonic_mean",
    "has_form",
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
    "vector_residue",
    "write_energy",
]
