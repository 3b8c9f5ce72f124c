"""Measuring what a model knows, and what an intervention did to it."""

from .questions import FEW_SHOT, QuestionScores, score_questions
from .statistics import Interval, bootstrap, paired_bootstrap

__all__ = ["FEW_SHOT", "Interval", "QuestionScores", "bootstrap", "paired_bootstrap", "score_questions"]
