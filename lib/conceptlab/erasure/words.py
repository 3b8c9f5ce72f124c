"""Erasing a concept where the model reads it: the embeddings of its words lose what sets them apart.

    e_i <- e_i - delta (e_i - mean of all embeddings)

At delta 1 a word of the concept reads like an average token, at 2 it is turned round. The words are the single-token
words of the concept file and, behind them, the words most typical of the concept's texts. This is EMBER's edit
(`embedding_edit`) with every token as an atom of its own. In small models its sparse factors are too coarse: in
SmolLM2 100 atoms explain 15 % of the embeddings' variance, and the atom chosen for Japan does not hold " Japan".

The edit does not reach what the MLPs hold. A question that describes the concept without its words finds it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..core import NotPossible
from ..data import Concept, other_texts
from ..edits import WeightEdit
from ..models import LanguageModel
from .embedding import ConceptAtoms, bare_or_spaced_tokens, embedding_edit, token_counts
from .method import Method

if TYPE_CHECKING:
    from .shared import Shared

N_TEXTS = 1000  # leads of other articles that the concept's texts are compared with


def word_atoms(
    lm: LanguageModel, concept: Concept, n_typical: int = 20, rate_ratio: float = 10.0, min_count: int = 3
) -> ConceptAtoms:
    """The concept's words and what their embeddings have beyond the mean, for `embedding_edit`.

    `n_typical`: further words, whole ones of three letters or more, at least `min_count` times in the concept's texts
    and `rate_ratio` times as frequent there as in the neighbour's and in other texts; those with the largest
    count x log ratio. Look-alike words are left alone. Raises NotPossible when no word is one token.
    """
    spared = bare_or_spaced_tokens(lm, concept.lookalikes)
    named = sorted(bare_or_spaced_tokens(lm, concept.words) - spared)
    typical = [i for i in _typical(lm, concept, rate_ratio, min_count) if i not in {*named, *spared}]
    ids = named + typical[:n_typical]
    if not ids:
        raise NotPossible(f"No word of {concept.name} is a single token of {lm.name}; add words to its file.")
    info = {"method": "words", "concept": concept.name, "tokens": len(ids), "named": len(named)}
    return _atoms(lm, ids, info)


def random_word_atoms(lm: LanguageModel, concept: Concept, like: ConceptAtoms, seed: int = 0) -> ConceptAtoms:
    """A control: as many other words, each of about the frequency that one of `like` has outside the concept's texts.

    Words of the neighbour and look-alikes may be among them.
    """
    counts = token_counts(lm, other_texts(concept, N_TEXTS) + (concept.neighbour.texts() if concept.neighbour else []))
    words = [i for i in _whole_words(lm, list(counts)) if i not in set(like.ids.tolist())]
    order = torch.randperm(len(words), generator=torch.Generator().manual_seed(seed)).tolist()
    words, drawn = [words[i] for i in order], []
    for wanted in like.ids.tolist():
        nearest = min(words, key=lambda i: abs(counts[i] - counts[wanted]))  # the first drawn of equals
        words.remove(nearest)
        drawn.append(nearest)
    return _atoms(lm, drawn, {"control": "random words", "tokens": len(drawn), "seed": seed})


def _atoms(lm: LanguageModel, ids: list[int], info: dict) -> ConceptAtoms:
    rows = lm.embedding()
    index = torch.tensor(ids)
    parts = rows[index.to(rows.device)].float().cpu() - rows.float().mean(0).cpu()
    return ConceptAtoms(index, parts, len(ids), 1.0, tuple((word,) for word in lm.words(index)), info)


def _whole_words(lm: LanguageModel, ids: list[int]) -> list[int]:
    texts = lm.words(ids) if ids else []
    whole = (w.startswith(" ") and len(w.strip()) > 2 and w.strip().isalpha() for w in texts)
    return [i for i, keep in zip(ids, whole, strict=True) if keep]


def _typical(lm: LanguageModel, concept: Concept, rate_ratio: float, min_count: int) -> list[int]:
    own, rest = token_counts(lm, concept.texts()), token_counts(lm, other_texts(concept, N_TEXTS))
    near = token_counts(lm, concept.neighbour.texts() if concept.neighbour else [])
    n, sizes = max(own.total(), 1), (max(rest.total(), 1), max(near.total(), 1))
    score = {}
    for i in _whole_words(lm, [i for i, count in own.items() if count >= min_count]):
        elsewhere = max((rest[i] + 0.5) / sizes[0], (near[i] + 0.5) / sizes[1] if near else 0.0)
        if own[i] / n >= rate_ratio * elsewhere:
            score[i] = own[i] * math.log(own[i] / n / elsewhere)
    return sorted(score, key=score.__getitem__, reverse=True)


# ---- methods ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class WordsConfig:
    """Strength and side of the edit."""

    delta: float = 1.0  # 1 takes the words' meaning, 2 turns it round
    side: str = "input"  # or "both": in the unembedding too, where a model shares the two


def fit_words(lm: LanguageModel, concept: Concept, config: WordsConfig, shared: Shared) -> WeightEdit:
    """The embeddings of the concept's words lose what sets them apart from the mean."""
    return embedding_edit(lm, shared.word_atoms, config.delta, config.side)


DELTAS = tuple(0.25 * i for i in range(1, 13))
SOURCE = "ours: EMBER's edit (arXiv 2606.03695) with every word as an atom of its own"
WORDS = Method("words", "words", SOURCE, WordsConfig(), fit_words, {"delta": DELTAS}, ("word_atoms",), "3 s")
WORDS_BOTH = Method(
        "words_both", "words", SOURCE + ", input and output side", WordsConfig(side="both"), fit_words,
        {"delta": DELTAS}, ("word_atoms",), "3 s",
    )  # fmt: skip
