"""The course around the notebooks: running, site, checks, plots, widgets, profiles, headlines."""

from .headline import headline
from .profiles import PROFILES, get_profile
from .widgets import label_widget, search_figure, search_widget

__all__ = ["PROFILES", "get_profile", "headline", "label_widget", "search_figure", "search_widget"]
