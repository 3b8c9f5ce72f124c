"""The course at a glance: its parts, what each notebook found in plain words, and how long a learner sits over it."""

from __future__ import annotations

import re

PARTS = (
    ("I. Where is it?", ("00", "01", "02", "03")),
    ("II. Can it go?", ("04", "05", "06", "07")),
    ("III. How does it lie there?", ("08", "09", "10", "11")),
)

# What came out, without numbers, here and in the README's map: the headline beside it has those of the last run.
PLAIN = {
    "tour": "Ten minutes with one concept: find where Japan is written, erase it, and see what brings it back.",
    "00_start_here": "An MLP layer is a sum of fixed vectors. A fact can be read off the model only in its last "
    "layers, although it is used earlier.",
    "01_concept_vectors": "A few single vectors write a concept's words. Noise on them moves the answers about it, "
    "though not surely more than noise on other busy neurons; writing a word is not yet holding the knowledge.",
    "02_sparse_autoencoders": "A learnt dictionary explains far more of what a layer writes than random directions do. "
    "A better fit is not a better dictionary, and as detectors of known classes features lose to neurons.",
    "03_autointerp": "Counting words labels features well enough to predict where they fire. Random directions reach "
    "two thirds of that with labels of their own, and hard negatives take most of the lead.",
    "04_pisces": "Rewriting a few rows of the weights costs the model most of what it knew about Japan. Near subjects "
    "are mostly spared, but not always: Korea, which nobody had watched, goes along. Which rows are changed matters in "
    "both models; which feature's direction is written there has been shown to matter in one of them.",
    "05_attacks": "A few steps of training on text without the answers bring part of it back. A random edit gets back "
    "as large a share of its damage, so that is not surely knowledge that was hidden.",
    "06_unlearning_lab": "No way of forgetting wins everywhere. Fine-tuning takes part of the neighbour as well, and "
    "hardly moves the concept's vectors. Guards at run time spare where their detector is silent, and leave "
    "everything in the weights.",
    "07_dissecting_unlearning": "Parts of the original are put back into an unlearned model, and into one that random "
    "noise has damaged as much. The last layers repair both, so what repairs a model is not what was changed in it.",
    "08_specialisation": "Switching off the vectors that are busy on a concept costs it more than switching off "
    "equally busy ones, but other subjects suffer, too. Being busy is not the same as being specialised.",
    "09_reasoning_or_memory": "A direction that tells reasoning from recall perfectly tells two kinds of text apart. "
    "Where story, words and digits are the same, little or nothing of it is left.",
    "10_early_exit": "Some tasks are settled after a few layers, others only near the end. Choosing the depth per "
    "question helps on some of them; on others only the mixture of depths does. From which layer on a fact can be "
    "read tells little about what erasing costs it.",
    "11_is_it_fake": "Six results of this course, each beside the control that found it out. Some shrink, one is gone, "
    "and none stays as large as its first figure. The controls fit on one page.",
}


def part_of(name: str) -> str:
    """The part of the course that a notebook belongs to; "" for one outside, such as the tour."""
    return next((title for title, numbers in PARTS if name[:2] in numbers), "")


def learner_minutes(box: str) -> int | None:
    """Minutes with the exercises, from a notebook's line about time; None where it does not say.

    Reads "60 minutes with the exercises", "an hour with the exercises", "two to three hours with the exercises".
    """
    found = re.search(r"(\d+|an|one|two|three)(?:\s+to\s+(\d+|two|three|four))?\s+(minutes?|hours?)\s+with", box)
    if not found:
        return None
    number, unit = found.group(2) or found.group(1), found.group(3)
    if number.isdigit():
        return int(number) * (60 if unit.startswith("hour") else 1)
    return {"an": 60, "one": 60, "two": 120, "three": 180, "four": 240}[number]


def hours(minutes: int) -> str:
    """Minutes as a reader says them: "40 minutes", "1 hour", "1.5 hours"."""
    if minutes < 55:
        return f"{minutes} minutes"
    value = round(minutes / 30) / 2
    return "1 hour" if value == 1 else f"{value:g} hours"
