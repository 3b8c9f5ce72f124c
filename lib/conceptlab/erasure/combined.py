"""Combinations: the chosen PISCES edit together with an edit of the embeddings.

EMBER (arXiv 2606.03695) adds its embedding edit to the chosen PISCES edit. With the words it is the other way round:
the chosen edit of the words stays, and PISCES is added at its chosen strength or a share of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..data import Concept
from ..edits import WeightEdit
from ..models import LanguageModel
from .embedding import STRENGTHS, EmbeddingConfig, EmberConfig, fit_embedding
from .method import Method
from .pisces.method import fit_pisces

if TYPE_CHECKING:
    from .shared import Shared


@dataclass(frozen=True)
class WithEmbeddingConfig:
    """Strength of the embedding edit on top of the chosen PISCES edit."""

    delta: float = 20.0
    ember: EmberConfig = EmberConfig()


def fit_with_embedding(lm: LanguageModel, concept: Concept, config: WithEmbeddingConfig, shared: Shared) -> WeightEdit:
    """PISCES as chosen, and EMBER's embedding edit."""
    second = fit_embedding(lm, concept, EmbeddingConfig(config.delta, config.ember), shared)
    return shared.chosen("pisces").edit + second


@dataclass(frozen=True)
class WithWordsConfig:
    """Share of the chosen PISCES edit's mu, on top of the chosen edit of the words."""

    share: float = 0.5
    words: str = "words"  # or "words_both"


def fit_with_words(lm: LanguageModel, concept: Concept, config: WithWordsConfig, shared: Shared) -> WeightEdit:
    """The edit of the words as chosen, and PISCES at a share of its strength."""
    words, full = shared.chosen(config.words).edit, shared.chosen("pisces")
    if config.share == 1:
        return full.edit + words
    weaker = replace(full.config, mu=config.share * full.config.mu)
    return fit_pisces(lm, concept, weaker, shared) + words


SHARES = tuple(i / 12 for i in range(1, 13))
PISCES_EMBEDDING = Method(
        "pisces+embedding", "combination", "EMBER (arXiv 2606.03695): its embedding edit on top of PISCES",
        WithEmbeddingConfig(), fit_with_embedding, {"delta": STRENGTHS}, ("pisces",), "PISCES and 20 s",
    )  # fmt: skip
PISCES_WORDS = Method(
        "pisces+words", "combination", "ours", WithWordsConfig(), fit_with_words, {"share": SHARES},
        ("pisces", "words"), "both",
    )  # fmt: skip
PISCES_WORDS_BOTH = Method(
        "pisces+words_both", "combination", "ours", WithWordsConfig(words="words_both"), fit_with_words,
        {"share": SHARES}, ("pisces", "words_both"), "both",
    )  # fmt: skip
