"""Is there one direction between reasoning and recall, and how much of it is format?"""

from .reading import (
    Split,
    by_template,
    cosine_draws,
    cosines,
    equally_hard,
    halves,
    held_out,
    inside_template,
    mean_difference,
    on_plane,
    ridge,
    shuffled_limit,
    split_auroc,
    split_draws,
)
from .states import ItemStates, item_states, margins
from .steering import Added, Multiplied, random_directions, unit
from .surface import SURFACES, asked_words, counts, said_words, words

__all__ = [
    "Added",
    "ItemStates",
    "Multiplied",
    "SURFACES",
    "Split",
    "asked_words",
    "by_template",
    "cosine_draws",
    "cosines",
    "counts",
    "equally_hard",
    "halves",
    "held_out",
    "inside_template",
    "item_states",
    "margins",
    "mean_difference",
    "on_plane",
    "random_directions",
    "ridge",
    "said_words",
    "shuffled_limit",
    "split_auroc",
    "split_draws",
    "unit",
    "words",
]
