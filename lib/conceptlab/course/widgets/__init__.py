"""Widgets: each a thin layer over a plain function whose figure also stands on the page without it."""

from .attacking import Attacked, attack_alt, attack_desk, attack_edits, attack_figure, transcript_html
from .desks import (
    Erased,
    FeatureSwitches,
    ShownErasure,
    answers_html,
    erase,
    erasure_alt,
    erasure_desk,
    erasure_figure,
    feature_places,
    judged,
)
from .explore import FeatureBrowser, feature_html, vector_alt, vector_effects, vector_explorer, vector_figure
from .figures import (
    feature_figure,
    feature_widget,
    label_hits,
    search_figure,
    search_widget,
    top_contexts,
)
from .panel import Panel, png

__all__ = [
    "Attacked",
    "Erased",
    "FeatureBrowser",
    "FeatureSwitches",
    "Panel",
    "ShownErasure",
    "answers_html",
    "attack_alt",
    "attack_desk",
    "attack_edits",
    "attack_figure",
    "erase",
    "erasure_alt",
    "erasure_desk",
    "erasure_figure",
    "feature_figure",
    "feature_html",
    "feature_places",
    "feature_widget",
    "judged",
    "label_hits",
    "png",
    "search_figure",
    "search_widget",
    "top_contexts",
    "transcript_html",
    "vector_alt",
    "vector_effects",
    "vector_explorer",
    "vector_figure",
]
