"""Measuring what a model knows, and what an intervention did to it."""

from .fluency import Fluency, fluency
from .questions import (
    FEW_SHOT,
    QuestionScores,
    few_shot_prompt,
    gold_logprobs,
    question_stem,
    score_questions,
    score_stems,
)
from .scorecard import Change, Comparison, Scorecard, compare, edit_effects, harmonic_mean, relative_accuracy, scorecard
from .statistics import Interval, bootstrap, paired_bootstrap

__all__ = [
    "FEW_SHOT",
    "Change",
    "Comparison",
    "Fluency",
    "Interval",
    "QuestionScores",
    "Scorecard",
    "bootstrap",
    "compare",
    "edit_effects",
    "fluency",
    "few_shot_prompt",
    "gold_logprobs",
    "question_stem",
    "harmonic_mean",
    "paired_bootstrap",
    "relative_accuracy",
    "score_questions",
    "score_stems",
    "scorecard",
]
