"""Measuring what a model knows, and what an intervention did to it."""

from .behaviour import Behaviour, behaviour
from .fluency import Fluency, fluency, held_out_passages
from .forms import FORMS, has_form, score_form, score_forms
from .questions import (
    FEW_SHOT,
    Asked,
    QuestionScores,
    ask,
    few_shot_prompt,
    gold_logprobs,
    question_stem,
    score_questions,
    score_stems,
)
from .residue import Residue, Trace, residue, trace, write_energy
from .scorecard import (
    Change,
    Comparison,
    Scorecard,
    compare,
    compare_writing,
    concept_questions,
    edit_effects,
    harmonic_mean,
    relative_accuracy,
    score_sets,
    scorecard,
)
from .search import Cell, Judge, Search, SearchConfig, search_settings
from .statistics import Interval, bootstrap, paired_bootstrap

__all__ = [
    "FEW_SHOT",
    "FORMS",
    "Asked",
    "Behaviour",
    "Cell",
    "Change",
    "Comparison",
    "Fluency",
    "Interval",
    "Judge",
    "QuestionScores",
    "Residue",
    "Scorecard",
    "Search",
    "SearchConfig",
    "Trace",
    "ask",
    "behaviour",
    "bootstrap",
    "compare",
    "compare_writing",
    "concept_questions",
    "edit_effects",
    "few_shot_prompt",
    "fluency",
    "gold_logprobs",
    "harmonic_mean",
    "has_form",
    "held_out_passages",
    "paired_bootstrap",
    "question_stem",
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
    "write_energy",
]
