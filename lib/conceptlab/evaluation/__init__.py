"""Measuring what a model knows, and what an intervention did to it."""

from .fluency import Fluency, fluency
from .questions import FEW_SHOT, QuestionScores, gold_logprobs, score_questions
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
    "gold_logprobs",
    "harmonic_mean",
    "paired_bootstrap",
    "relative_accuracy",
    "score_questions",
    "scorecard",
]
