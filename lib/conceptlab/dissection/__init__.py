"""What did unlearning change? Parts of the original put back into an unlearned model, and the other way round.

The knowledge recovery experiment of Hong et al. (arXiv 2410.06606), with the controls that it lacks, and where the
weights moved; and skills forgotten by random labels: how far beyond the trained items that reaches (`skills.py`).
"""

from .damage import at_damage, random_as_costly
from .distances import DISTANCES, Distances, distances, share_taken_back
from .forced import Forced, forced_gold, forced_own
from .moves import concept_span, in_span, inside_span, moved_by_layer, outside_span, random_span
from .patching import ACTIVATIONS, TISSUES, WEIGHTS, Dissection, Traced, layer_windows, traced
from .skills import (
    SKILL_PROMPT,
    Answered,
    Items,
    Skill,
    answered,
    by_group,
    dealt_labels,
    label_rows,
    label_tokens,
    tuned,
    word_salad,
)

__all__ = [
    "ACTIVATIONS",
    "Dissection",
    "Distances",
    "Forced",
    "DISTANCES",
    "TISSUES",
    "Traced",
    "WEIGHTS",
    "at_damage",
    "concept_span",
    "distances",
    "forced_gold",
    "forced_own",
    "in_span",
    "layer_windows",
    "moved_by_layer",
    "outside_span",
    "random_as_costly",
    "random_span",
    "share_taken_back",
    "traced",
    "SKILL_PROMPT",
    "Answered",
    "Items",
    "Skill",
    "answered",
    "by_group",
    "dealt_labels",
    "label_rows",
    "label_tokens",
    "tuned",
    "word_salad",
    "inside_span",
]
