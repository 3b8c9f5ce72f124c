"""Classification tasks from real text, chosen to differ in the depth at which a model can solve them.

Six come from what the course already reads: encyclopedia leads with topic labels, and the concepts' questions. Five are
made from templates (`templates.py`).
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core import ConceptLabError
from ..data import list_concepts, load_concept, vital_articles
from .templates import TEMPLATES, split_groups

TEST_SHARE = 0.4  # of the items of every task


@dataclass(frozen=True)
class Task:
    """Texts with one label each; the first `n_train` are for training, the rest for the one test."""

    name: str
    texts: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    n_train: int
    groups: tuple[int, ...] = ()  # of the test items: what an interval is over, where several items share a word

    @property
    def targets(self) -> Int[Tensor, " n"]:
        return torch.tensor(self.labels)

    @property
    def most_common(self) -> float:
        """Accuracy on the test items of always naming the most frequent class of the training items."""
        train = torch.tensor(self.labels[: self.n_train])
        test = torch.tensor(self.labels[self.n_train :])
        return float((test == train.bincount().argmax()).float().mean())


def _topic(rng: random.Random) -> list[tuple[str, str]]:
    """The first 12 words of an encyclopedia lead: which of 11 topics?"""
    return [(" ".join(a.text.split()[:12]), a.topic) for a in _labelled() if len(a.text.split()) >= 12]


def _title(rng: random.Random) -> list[tuple[str, str]]:
    """The title of an article alone: which of 11 topics? Nothing but memory of the name can tell."""
    return [(a.title, a.topic) for a in _labelled()]


def _verb(rng: random.Random) -> list[tuple[str, str]]:
    """What stands before the first verb of a lead: is it followed by is, are, was or were?"""
    found = [re.match(r"^(.{3,60}?) (is|are|was|were) ", a.text) for a in vital_articles()]
    items = [(m.group(1), m.group(2)) for m in found if m]
    few = [x for x in items if x[1] != "is"]
    return few + rng.sample([x for x in items if x[1] == "is"], len(few) // 2)  # else two of three are "is"


def _order(rng: random.Random) -> list[tuple[str, str]]:
    """Twelve words of running text: are two neighbouring words swapped?"""
    items = []
    for article in vital_articles():
        words = article.text.split()[2:14]
        at = rng.randint(4, 8)
        if len(words) < 12 or words[at].lower() == words[at + 1].lower():
            continue
        if swapped := rng.random() < 0.5:
            words[at], words[at + 1] = words[at + 1], words[at]
        items.append((" ".join(words), "swapped" if swapped else "as written"))
    return items


def _truth(rng: random.Random) -> list[tuple[str, str]]:
    """A question of the course with one of its options as the answer: right or wrong?"""
    concepts = [load_concept(name) for name in list_concepts()]
    asked = {q.q: q for c in concepts for part in (c, c.neighbour) if part for q in (*part.dev, *part.test)}
    items = []
    for q in asked.values():
        right = rng.random() < 0.5
        answer = q.gold if right else rng.choice([o for o in q.options if o != q.gold])
        items.append((f"Question: {q.q}\nAnswer: {answer}", "right" if right else "wrong"))
    return items


def _follows(rng: random.Random) -> list[tuple[str, str]]:
    """Two sentences of leads: does the second follow the first, or is it from another article of the same topic?"""
    pairs: dict[str, list[tuple[str, str]]] = {}
    for article in _labelled():
        parts = re.split(r"(?<=[a-z]\.) (?=[A-Z])", article.text)
        if len(parts) > 1 and len(parts[0].split()) <= 14 and len(parts[1].split()) >= 5:
            pairs.setdefault(article.topic, []).append((parts[0], " ".join(parts[1].split()[:8])))
    items = []
    for group in pairs.values():
        others = group[1:] + group[:1]
        for (first, second), (_, other) in zip(group, others, strict=True):
            follows = rng.random() < 0.5
            items.append((f"{first} {second if follows else other}", "follows" if follows else "another"))
    return items


TASKS: dict[str, Callable[[random.Random], list[tuple[str, str]]]] = {
    "topic": _topic, "title": _title, "verb": _verb, "order": _order, "truth": _truth, "follows": _follows,
}  # fmt: skip


# How many items the course uses of each; one pass over all reads 0.18 million tokens. Templates: all that there are.
SIZES = {
    "topic": 2_000, "title": 2_500, "verb": 2_500, "order": 1_500, "truth": 1_500, "follows": 1_000,
    "agreement": 0, "sense": 0, "two_hops": 0, "sentiment": 0, "entailment": 0,
}  # fmt: skip


def load_task(name: str, n: int | None = None, seed: int = 0) -> Task:
    """A task of `SIZES` with `n` items (None: its size there), shuffled by `seed`.

    Tasks from templates are whole: `n` is left alone, and their test items have words (`groups`) of their own.
    Raises ConceptLabError for an unknown task, for fewer than 30 items, and for more than there are.
    """
    _known(name)
    if name in TEMPLATES:
        return _from_templates(name, seed)
    rng = random.Random(f"{name} {seed}")
    items = sorted(dict(TASKS[name](rng)).items())  # a text once
    n = SIZES[name] if n is None else n
    if not 30 <= n <= len(items):
        raise ConceptLabError(f"The task {name!r} has {len(items)} items; ask for 30 to that many, not {n}.")
    rng.shuffle(items)
    classes = tuple(sorted({label for _, label in items}))
    chosen = items[:n]
    labels = tuple(classes.index(label) for _, label in chosen)
    return Task(name, tuple(text for text, _ in chosen), labels, classes, n - round(n * TEST_SHARE))


def _from_templates(name: str, seed: int) -> Task:
    rng = random.Random(f"{name} {seed}")
    train, test = split_groups(TEMPLATES[name](rng), TEST_SHARE, rng)
    items, words = train + test, sorted({item.group for item in test})
    classes = tuple(sorted({item.label for item in items}))
    labels = tuple(classes.index(item.label) for item in items)
    groups = tuple(words.index(item.group) for item in test)
    return Task(name, tuple(item.text for item in items), labels, classes, len(train), groups)


def letter_features(texts: Sequence[str], size: int = 512) -> Float[Tensor, "1 n size"]:
    """What a reader without a model sees: how often each three letters stand in a text, in `size` boxes, standardised.

    The shape is that of the states of one layer, so that an exit can be fitted to it.
    """
    rows = torch.zeros(len(texts), size)
    for row, text in zip(rows, texts, strict=True):
        for i in range(len(text)):
            row[zlib.crc32(f"{text} "[i : i + 3].encode()) % size] += 1
    rows = rows.sqrt()
    return ((rows - rows.mean(0)) / rows.std(0).clamp_min(0.1))[None]


def describe(name: str) -> str:
    """The task in one or two sentences."""
    _known(name)
    return (TASKS.get(name) or TEMPLATES[name]).__doc__ or ""


def _known(name: str) -> None:
    if name not in SIZES:
        raise ConceptLabError(f"Unknown task {name!r}; known are {', '.join(SIZES)}.")


def _labelled() -> list:
    return [a for a in vital_articles() if a.topic != "Uncategorized"]
