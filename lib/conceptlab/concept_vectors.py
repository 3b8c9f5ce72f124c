"""Concept vectors: single value vectors of MLP layers that promote the words of one concept.

Find them by vocabulary projection (`build_atlas`, `coherence`, `search`), test whether they matter (`noise_edit`,
`answer_shift`), and take them out (`scale_edit`: Needle without the training loop). After Hong et al. 2024,
"Intrinsic Evaluation of Unlearning Using Parametric Knowledge Traces" (ConceptVectors, arXiv 2406.11614).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .cache import ConceptLabError
from .coherence import coherence, stems, unit_embeddings
from .edits import WeightEdit, value_edit
from .evaluation.questions import QuestionScores
from .evaluation.replay import Replay
from .evaluation.residue import trace, vector_residue
from .models import LanguageModel
from .projection import TopTokens, logit_effect, project


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
        lists, shown, found = self.tokens.signed_ids(), set(), []
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
    units, stem = unit_embeddings(lm, vocab_ids), stems(lm)
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
    folded = vectors.float() * lm.final_gain().float()
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


def search(
    lm: LanguageModel,
    words: Iterable[str],
    n: int = 10,
    atlas: Atlas | None = None,
    layers: Sequence[int] | None = None,
) -> list[ConceptVector]:
    """The `n` vector ends that promote `words` most, either sign, ranked by `tail_score`.

    Words that are no single token are left out. With `atlas` its layers are searched and the tokens are added;
    `layers` restricts the result. Raises ConceptLabError when no word is left.
    """
    words = list(words)
    found = lm.single_tokens(words)
    if not found:
        raise ConceptLabError(
            f"None of the words {', '.join(words[:5]) or '(none)'} is a single token of {lm.name}; try other words."
        )
    searched = tuple(range(lm.n_layers)) if atlas is None else atlas.layers
    effects = word_effects(lm, all_value_vectors(lm, searched), torch.tensor(list(found.values())), atlas)
    scores = torch.stack([tail_score(effects), tail_score(-effects)], 1)
    if layers is not None:
        wanted = torch.tensor([layer in layers for layer in searched]).repeat_interleave(lm.d_mlp)
        scores[~wanted] = -1.0
    results = []
    for i in scores.flatten().topk(n).indices.tolist():
        layer, neuron, sign = searched[i // 2 // lm.d_mlp], i // 2 % lm.d_mlp, 1 - 2 * (i % 2)
        tokens = () if atlas is None else atlas.describe(lm, layer, neuron, sign).tokens
        results.append(ConceptVector(layer, neuron, sign, float(scores.flatten()[i]), tokens))
    return results


def tail_score(effects: Float[Tensor, "n m"], beyond: float = 3.0) -> Float[Tensor, " n"]:
    """Mean over words of what exceeds `beyond` standard deviations: strong effects on some words, not weak on all."""
    return (effects - beyond).clamp_min(0).mean(1)


def random_vectors(lm: LanguageModel, like: Sequence[ConceptVector], seed: int = 0) -> list[ConceptVector]:
    """A control: for each vector another neuron of the same layer, drawn at random, none twice and none of `like`."""
    generator = torch.Generator().manual_seed(seed)
    taken = {(v.layer, v.neuron) for v in like}
    drawn = []
    for v in like:
        while (v.layer, neuron := int(torch.randint(lm.d_mlp, (1,), generator=generator))) in taken:
            pass
        taken.add((v.layer, neuron))
        drawn.append(ConceptVector(v.layer, neuron, v.sign, float("nan")))
    return drawn


def matched_vectors(
    lm: LanguageModel, like: Sequence[ConceptVector], texts: Sequence[str], avoid: Sequence[ConceptVector] = ()
) -> list[ConceptVector]:
    """A stricter control: for each vector the neuron of its layer that writes as much on `texts`, none of `avoid`.

    What a neuron writes is its mean |activation| times the length of its value vector; start tokens do not count.
    """
    ids, mask = lm.tokens(texts)
    mask[:, 0] = False
    sites = [("neurons", layer) for layer in sorted({v.layer for v in like})]
    found = lm.capture(ids, sites, mask)
    size = {
        layer: found[kind, layer][mask].abs().mean(0) * lm.value_vectors(layer).norm(dim=1) for kind, layer in sites
    }
    taken = {(v.layer, v.neuron) for v in (*like, *avoid)}
    chosen = []
    for v in like:
        distance = (size[v.layer] / size[v.layer][v.neuron]).log().abs()
        distance[[neuron for layer, neuron in taken if layer == v.layer]] = torch.inf
        neuron = int(distance.argmin())
        taken.add((v.layer, neuron))
        chosen.append(ConceptVector(v.layer, neuron, v.sign, float("nan")))
    return chosen


# ---- edits ----------------------------------------------------------------------------------------------
def _edit(lm: LanguageModel, vectors: Sequence[ConceptVector], change, info: dict) -> WeightEdit:
    """The edit that adds `change(values [n, d_model])` to the vectors; one low-rank change per layer."""
    if not vectors:
        raise ConceptLabError("An edit needs at least one concept vector; the list was empty.")
    parts = []
    for layer in sorted({v.layer for v in vectors}):
        neurons = [v.neuron for v in vectors if v.layer == layer]
        parts.append(value_edit(lm, layer, neurons, change(lm.value_vectors(layer)[neurons])))
    whole = reduce(add, parts)
    return WeightEdit(lm.name, whole.changes, info | {"vectors": [[v.layer, v.neuron] for v in vectors]})


def noise_edit(lm: LanguageModel, vectors: Sequence[ConceptVector], c: float, seed: int = 0) -> WeightEdit:
    """Add Gaussian noise of length exactly `c |v|` to each value vector v (ConceptVectors, causal validation).

    The reference uses a fixed standard deviation of 0.1 per coordinate; length relative to the vector carries over to
    models of another width.
    """
    generator = torch.Generator().manual_seed(seed)

    def change(values: Tensor) -> Tensor:
        noise = torch.randn(values.shape, generator=generator).to(values)
        return F.normalize(noise, dim=1) * values.norm(dim=1, keepdim=True) * c

    return _edit(lm, vectors, change, {"edit": "noise", "c": c, "seed": seed})


def scale_edit(lm: LanguageModel, vectors: Sequence[ConceptVector], factor: float = 0.0) -> WeightEdit:
    """Multiply each value vector by `factor`: 0 ablates it (Needle), -1 turns it round."""
    return _edit(lm, vectors, lambda values: values * (factor - 1.0), {"edit": "scale", "factor": factor})


# ---- measures -------------------------------------------------------------------------------------------
def answer_shift(clean: QuestionScores, edited: QuestionScores) -> Float[Tensor, " n"]:
    """How much of the answer moved: total variation distance of the two distributions over the options, 0 to 1.

    The distribution is the softmax of the options' scores. Like the reference's BLEU it compares the edited model with
    the model's *own* former answer, right or wrong.
    """
    return (clean.logprobs.softmax(1) - edited.logprobs.softmax(1)).abs().sum(1) / 2


def noise_shift(
    lm: LanguageModel, replays: Sequence[Replay], vectors: Sequence[ConceptVector], c: float, seeds: Sequence[int]
) -> list[Float[Tensor, " n"]]:
    """The `answer_shift` of every question of each replay under `noise_edit`, averaged over the seeds."""
    first, found = min(v.layer for v in vectors), [[] for _ in replays]
    for seed in seeds:
        with noise_edit(lm, vectors, c, seed).applied(lm):
            for shifts, replay in zip(found, replays, strict=True):
                shifts.append(answer_shift(replay.clean, replay.score(first)))
    return [torch.stack(shifts).mean(0) for shifts in found]


def intrinsic(
    lm: LanguageModel, vectors: Sequence[ConceptVector], edit: WeightEdit, k: int = 200
) -> list[dict[str, float]]:
    """What an edit did to each vector: `jaccard`, `cosine` and `l2`, the intrinsic measures of ConceptVectors."""
    places = [(v.layer, v.neuron, v.sign) for v in vectors]
    before = trace(lm, places, k)
    with edit.applied(lm):
        return vector_residue(before, trace(lm, places, k))
