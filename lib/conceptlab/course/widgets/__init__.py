"""Widgets: each a thin layer over a plain function whose figure also stands on the page without it."""

from .desks import (
    Attacked,
    Erased,
    answers_html,
    attack_desk,
    attack_edits,
    attack_figure,
    erase,
    erasure_desk,
    erasure_figure,
    feature_places,
    judged,
    transcript_html,
)
from .explore import FeatureBrowser, feature_html, vector_explorer, vector_figure
from .figures import (
    feature_figure,
    feature_widget,
    label_hits,
    label_widget,
    search_figure,
    search_widget,
    top_contexts,
)
from .panel import Panel, png

__all__ = [
    "Attacked",
    "Erased",
    "FeatureBrowser",
    "Panel",
    "answers_html",
    "attack_desk",
    "attack_edits",
    "attack_figure",
    "erase",
    "erasure_desk",
    "erasure_figure",
    "feature_figure",
    "feature_html",
    "feature_places",
    "feature_widget",
    "judged",
    "label_hits",
    "label_widget",
    "png",
    "search_figure",
    "search_widget",
    "top_contexts",
    "transcript_html",
    "vector_explorer",
    "vector_figure",
]
