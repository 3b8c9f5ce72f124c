"""Is knowledge kept in specialised value vectors? Rankings, masking with controls, teaching through chosen vectors."""

from .activity import (
    FILLER,
    POSITIONS,
    corpus_frequency,
    differential,
    question_activity,
    stems,
    subject_words,
    without_words,
    wordless,
    words_of,
)
from .choice import equally_active, most_specific, overlap, random_neurons, shuffled_groups
from .lessons import RELATIONS, ROLES, Lessons, invented
from .masking import Masking, gap_interval, score_interval, specialisation_score
from .teaching import Taught, TeachingConfig, answer_loss, drift, teach_through

__all__ = [
    "FILLER",
    "Lessons",
    "Masking",
    "POSITIONS",
    "RELATIONS",
    "ROLES",
    "Taught",
    "TeachingConfig",
    "answer_loss",
    "corpus_frequency",
    "differential",
    "drift",
    "equally_active",
    "gap_interval",
    "invented",
    "most_specific",
    "overlap",
    "question_activity",
    "random_neurons",
    "score_interval",
    "shuffled_groups",
    "specialisation_score",
    "stems",
    "subject_words",
    "teach_through",
    "without_words",
    "wordless",
    "words_of",
]
