"""Explainers: from examples of a unit to a label. One interface, `explain(examples) -> Label`, no scoring here.

Input side: what the tokens and contexts on which the unit fires have in common. Output side: which tokens its
direction promotes. Both are rules; a label is a short list of items, each with its weight, and reads as one line.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from ..models import LanguageModel
from ..projection import project
from ..text import Article
from .examples import Corpus, Example, UnitExamples


@dataclass(frozen=True)
class Label:
    """A description of one unit: a line to read, and the items a rule-based judge looks for."""

    unit: int
    method: str  # name of the explainer
    text: str  # the line a reader sees; judges that read language need no more
    tokens: dict[str, float] = field(default_factory=dict)  # token at the place -> log-odds weight
    shapes: dict[str, float] = field(default_factory=dict)  # kind of token (`Example.shape`) -> weight
    previous: dict[str, float] = field(default_factory=dict)  # token just in front -> weight
    words: dict[str, float] = field(default_factory=dict)  # lower-case word of the context -> weight
    topics: dict[str, float] = field(default_factory=dict)  # topic of the text -> weight; for readers


@runtime_checkable
class Explainer(Protocol):
    """Writes labels."""

    name: str

    def explain(self, examples: UnitExamples) -> Label:
        """The label of one unit, from its examples alone."""
        ...


def log_odds(hits: int, n: int, background_hits: int, background_n: int, prior: float = 0.5) -> tuple[float, float]:
    """How much likelier an item is among `n` firing contexts than in the background, in nats, and its z-score.

    Both counts are smoothed by `prior`; the z-score divides by the standard error (Monroe et al. 2008, eq. 20 to 22).
    """
    a, b = hits + prior, n - hits + prior
    c, d = background_hits + prior, background_n - background_hits + prior
    value = math.log(a / b) - math.log(c / d)
    return value, value / math.sqrt(1 / a + 1 / c)


class InputExplainer:
    """Rule-based, input side: items over-represented where the unit fires, against a background sample.

    `background`: examples of random tokens of the labelling half. Items: the token, its shape, the token in front,
    words of the context, and the article's topic. Kept are those with a z-score of `least_z` that occur in 3 firing
    contexts, strongest first, `n_items` per kind.
    """

    name = "rule_based"

    def __init__(
        self, background: Sequence[Example], articles: Sequence[Article] = (), n_items: int = 16, least_z: float = 2.0
    ):
        self.articles, self.n_items, self.least_z = articles, n_items, least_z
        self.size = len(background)
        self.counts = {kind: _count(background, reader) for kind, reader in self._readers().items()}

    def explain(self, examples: UnitExamples) -> Label:
        """The label of one unit."""
        found = {kind: self._items(examples.spread, kind, reader) for kind, reader in self._readers().items()}
        return Label(examples.unit, self.name, _sentence(found), **found)

    def _readers(self) -> dict:
        readers = {
            "tokens": lambda e: {e.token},
            "shapes": lambda e: {e.shape},
            "previous": lambda e: {e.previous} - {""},
            "words": lambda e: e.words,
        }
        return readers | ({"topics": lambda e: {self.articles[e.doc].topic}} if self.articles else {})

    def _items(self, firing: Sequence[Example], kind: str, reader) -> dict[str, float]:
        scored = []
        for item, hits in _count(firing, reader).items():
            value, z = log_odds(hits, len(firing), self.counts[kind][item], self.size)
            if hits >= 3 and z >= self.least_z:
                scored.append((z, item, value))
        return {item: value for _, item, value in sorted(scored, reverse=True)[: self.n_items]}


def _count(examples: Iterable[Example], reader) -> Counter:
    return Counter(item for example in examples for item in reader(example))


def _sentence(found: dict[str, dict[str, float]], n: int = 4) -> str:
    """One readable line from the strongest items of each kind."""
    lead = {"tokens": "on", "shapes": "mostly", "previous": "after", "words": "among", "topics": "in texts on"}
    parts = []
    for kind, word in lead.items():
        items = [repr(x) if kind in ("tokens", "previous") else x for x in list(found.get(kind, {}))[:n]]
        if items:
            parts.append(f"{word} {', '.join(items)}")
    return "; ".join(parts) or "(nothing in common)"


class OutputExplainer:
    """Rule-based, output side: the tokens that a unit's direction promotes most (vocabulary projection).

    `directions`: what each unit writes to the residual stream, for an SAE `sae.residual_directions(lm)`. The promoted
    tokens serve as tokens and, as lower-case words, as words of the context; each weighs the same.
    """

    name = "output_side"

    def __init__(self, lm: LanguageModel, directions: Float[Tensor, "n d_model"], n_items: int = 8):
        self.lm, self.directions, self.n_items = lm, directions, n_items

    def explain(self, examples: UnitExamples) -> Label:
        """The label of one unit; its examples are not looked at."""
        ids = project(self.lm, self.directions[examples.unit : examples.unit + 1], k=self.n_items, cache=False).top_ids
        tokens = self.lm.words(ids[0])
        words = {w for t in tokens for w in re.findall(r"[^\W\d_]{3,}", t.lower())}
        text = f"promotes {', '.join(map(repr, tokens))}"
        return Label(
            examples.unit, self.name, text, tokens=dict.fromkeys(tokens, 1.0), words=dict.fromkeys(sorted(words), 1.0)
        )


def background_examples(corpus: Corpus, where: Tensor, n: int = 2_000, seed: int = 0) -> list[Example]:
    """Random tokens of the labelling half: what explainers compare firing contexts with."""
    return corpus.examples(corpus.sample(where.nonzero().squeeze(1), n, per_doc=10, seed=seed), "silent")
