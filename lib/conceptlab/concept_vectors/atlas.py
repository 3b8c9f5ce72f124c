"""Concept vectors: single value vectors of MLP layers that promote the words of one concept.

Find them by vocabulary projection (`build_atlas`, `coherence`, `search`), test whether they matter (`noise_edit`,
`answer_shift`), and take them out (`scale_edit`: Needle without the training loop). After Hong et al. 2024,
"Intrinsic Evaluation of Unlearning Using Parametric Knowledge Traces" (ConceptVectors, arXiv 2406.11614).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core import ConceptLabError
from ..models import LanguageModel, TopTokens, logit_effect, project
from .coherence import coherence, token_stems, unit_embeddings


# ---- all value vectors of a model -----------------------------------------------------------------------
@dataclass(frozen=True)
class ConceptVector:
    """One end of one value vector. `sign` -1: the words are promoted when the neuron is negative."""

    layer: int
    neuron: int
    sign: int
    score: float  # what it was ranked by
    tokens: tuple[str, ...] = ()  # strongest first

    @property
    def name(self) -> str:
        return f"L{self.layer}N{self.neuron}{'+' if self.sign > 0 else '-'}"


@dataclass(frozen=True)
class Atlas:
    """The vocabulary projection of every value vector of some layers, both ends, and how coherent each end is."""

    layers: tuple[int, ...]
    d_mlp: int
    tokens: TopTokens  # vector i is neuron i % d_mlp of layers[i // d_mlp]
    coherence: Float[Tensor, "n 2"]  # of what +v promotes, of what -v promotes
    units: Float[Tensor, "d_vocab d_model"]
    stem: Int[Tensor, " d_vocab"]
    vocab_ids: Tensor | None  # the tokens projected on, [m]; None: all
    mean: Float[Tensor, " n"]  # of each vector's logit effects over those tokens
    spread: Float[Tensor, " n"]  # their standard deviation

    def where(self, i: int) -> tuple[int, int]:
        """(layer, neuron) of vector i."""
        return self.layers[i // self.d_mlp], i % self.d_mlp

    def index(self, layer: int, neuron: int) -> int:
        """The number of a vector. Raises when its layer is not in the atlas."""
        if layer not in self.layers or not 0 <= neuron < self.d_mlp:
            raise ConceptLabError(
                f"Layer {layer}, neuron {neuron} is not in this atlas of layers {self.layers[0]} to {self.layers[-1]} "
                f"with neurons 0 to {self.d_mlp - 1}."
            )
        return self.layers.index(layer) * self.d_mlp + neuron

    def only(self, layers: Sequence[int]) -> Atlas:
        """The atlas of some of its layers, in their order."""
        rows = torch.cat([torch.arange(self.d_mlp) + self.index(layer, 0) for layer in layers])
        return replace(
            self, layers=tuple(layers), tokens=self.tokens[rows], coherence=self.coherence[rows],
            mean=self.mean[rows], spread=self.spread[rows],
        )  # fmt: skip

    def describe(self, lm: LanguageModel, layer: int, neuron: int, sign: int, n: int = 10) -> ConceptVector:
        """One end of one vector, with its coherence as score and its `n` strongest tokens."""
        i, end = self.index(layer, neuron), int(sign < 0)
        ids = (self.tokens.bottom_ids if end else self.tokens.top_ids)[i, :n]
        return ConceptVector(layer, neuron, sign, float(self.coherence[i, end]), tuple(lm.words(ids)))

    def gallery(
        self,
        lm: LanguageModel,
        layers: Sequence[int],
        n: int = 3,
        words: Int[Tensor, " m"] | None = None,
        need: float = 0.7,
    ) -> list[ConceptVector]:
        """The `n` most coherent ends of each layer, no theme twice.

        With `words` only lists whose top 15 tokens are in `words` to a share `need`. A list is skipped when three of
        the stems of its ten strongest tokens were shown before.
        """
        lists, shown, found = self.tokens.signed_ids(), set[int](), list[ConceptVector]()
        readable = torch.zeros(len(self.stem), dtype=torch.bool)
        readable[slice(None) if words is None else words] = True
        for layer in layers:
            start, kept = self.index(layer, 0), 0
            share = readable[lists[start : start + self.d_mlp, :, :15]].float().mean(2).flatten()
            scores = self.coherence[start : start + self.d_mlp].flatten()
            for i in scores.argsort(descending=True).tolist():
                themes = set(self.stem[lists[start + i // 2, i % 2, :10]].tolist())
                if kept < n and share[i] >= need and len(themes & shown) < 3:
                    shown, kept = shown | themes, kept + 1
                    found.append(self.describe(lm, layer, i // 2, 1 - 2 * (i % 2)))
                elif kept == n:
                    break
        return found


def all_value_vectors(lm: LanguageModel, layers: Sequence[int] | None = None) -> Float[Tensor, "n d_model"]:
    """Value vectors of the layers (all by default), one after the other."""
    return torch.cat([lm.value_vectors(layer) for layer in (range(lm.n_layers) if layers is None else layers)])


def build_atlas(
    lm: LanguageModel,
    layers: Sequence[int] | None = None,
    k: int = 50,
    vocab_ids: Int[Tensor, " m"] | None = None,
) -> Atlas:
    """Project every value vector of `layers` (all by default) and score both ends. The projection is cached."""
    layers = tuple(range(lm.n_layers) if layers is None else (lm.check_layer(layer) for layer in layers))
    values = all_value_vectors(lm, layers)
    tokens = project(lm, values, k, vocab_ids)
    units, stem = unit_embeddings(lm, vocab_ids), token_stems(lm)
    ends = [coherence(ids, units, stem) for ids in (tokens.top_ids, tokens.bottom_ids)]
    mean, spread = (x.cpu() for x in effect_moments(lm, values, vocab_ids))
    return Atlas(layers, lm.d_mlp, tokens, torch.stack(ends, 1), units, stem, vocab_ids, mean, spread)


# ---- search ---------------------------------------------------------------------------------------------
def effect_moments(
    lm: LanguageModel, vectors: Float[Tensor, "n d_model"], vocab_ids: Int[Tensor, " k"] | None = None
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Mean and standard deviation of each vector's logit effects over the vocabulary (or `vocab_ids`).

    They follow from the mean m and covariance C of the unembedding, as v.m and v.C.v: no projection is needed.
    """
    rows = lm.unembedding_rows()
    base = (rows if vocab_ids is None else rows[vocab_ids.to(rows.device)]).float()
    folded = lm.folded(vectors.float())
    return folded @ base.mean(0), ((folded @ torch.cov(base.T)) * folded).sum(1).clamp_min(1e-20).sqrt()


def word_effects(
    lm: LanguageModel, vectors: Float[Tensor, "n d_model"], word_ids: Int[Tensor, " m"], atlas: Atlas | None = None
) -> Float[Tensor, "n m"]:
    """Logit effect of each vector on each word, in standard deviations of its effects over the vocabulary.

    With `atlas`, `vectors` must be the vectors of that atlas, whose moments are then used.
    """
    mean, spread = effect_moments(lm, vectors) if atlas is None else (atlas.mean, atlas.spread)
    effects = logit_effect(lm, vectors, word_ids).float().cpu()
    return (effects - mean.cpu()[:, None]) / spread.cpu()[:, None]
