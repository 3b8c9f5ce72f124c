"""The course around the notebooks: running, site, checks, plots, widgets, profiles, headlines, points, tables."""

from .decisions import DECISIONS, decision_table
from .exercises import EXERCISES, exercises_of
from .grading import grade_folder
from .headline import headline
from .predictions import predict, recall_guess
from .profiles import PROFILES, get_profile
from .record import Points, progress_lines, read_record, record_file
from .tables import Grid
from .widgets import search_figure, search_widget

__all__ = [
    "DECISIONS",
    "EXERCISES",
    "Grid",
    "PROFILES",
    "Points",
    "recall_guess",
    "decision_table",
    "exercises_of",
    "get_profile",
    "grade_folder",
    "headline",
    "predict",
    "progress_lines",
    "read_record",
    "record_file",
    "search_figure",
    "search_widget",
]
