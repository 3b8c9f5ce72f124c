"""Concept vectors: single value vectors of MLP layers that promote the words of one concept.

Find them by vocabulary projection (`build_atlas`, `coherence`, `search`), test whether they matter (`noise_edit`,
`answer_shift`), and take them out (`scale_edit`: Needle without the training loop). After Hong et al. 2024,
"Intrinsic Evaluation of Unlearning Using Parametric Knowledge Traces" (ConceptVectors, arXiv 2406.11614).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .cache import ConceptLabError
from .edits import WeightEdit, value_edit
from .evaluation.questions import QuestionScores
from .models import LanguageModel
from .projection import TopTokens, project
from .text import vital_articles

_STEM = 5  # letters by which variants of one word are recognised: cancer, cancers, cancerous


# ---- words ----------------------------------------------------------------------------------------------
def plain_words(lm: LanguageModel, min_count: int = 3, skip_common: int = 0) -> Int[Tensor, " m"]:
    """Ids of tokens that are whole words: a space, then three or more letters (lower case but for the first).

    The word must occur `min_count` times in the course's encyclopedia; its `skip_common` most frequent words, which
    are nearly all function words, are left out.
    """
    counts = Counter(word for article in vital_articles() for word in re.findall(r"[a-z]+", article.text.lower()))
    common = {word for word, _ in counts.most_common(skip_common)}
    found = []
    for i in range(lm.d_vocab):
        token = lm.tokenizer.decode([i])
        word = token[1:].lower()
        if re.fullmatch(r" [A-Za-z][a-z]{2,}", token) and counts[word] >= min_count and word not in common:
            found.append(i)
    return torch.tensor(found)


def stems(lm: LanguageModel) -> Int[Tensor, " d_vocab"]:
    """A number per token, the same for case variants and for words that share their first five letters."""
    numbers: dict[str, int] = {}
    keys = [lm.tokenizer.decode([i]) for i in range(lm.d_vocab)]
    keys = [re.sub(r"[^a-z]", "", key.lower())[:_STEM] or key for key in keys]
    return torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys])


def first_of_stem(ids: Int[Tensor, "n k"], stem: Int[Tensor, " d_vocab"], m: int | None = None) -> Tensor:
    """`[n, k]` bool: the first `m` tokens of each list whose stem has not occurred before in that list."""
    s, k = stem[ids], ids.shape[1]
    earlier = torch.ones(k, k, dtype=torch.bool).tril(-1)
    keep = ~((s[:, :, None] == s[:, None, :]) & earlier).any(-1)
    return keep if m is None else keep & (keep.cumsum(1) <= m)


# ---- coherence ------------------------------------------------------------------------------------------
def unit_embeddings(
    lm: LanguageModel, vocab_ids: Int[Tensor, " m"] | None = None, whiten: bool = True
) -> Float[Tensor, "d_vocab d_model"]:
    """Unembedding rows, centred, whitened (unless told not to) and scaled to length 1.

    Mean and covariance are those of `vocab_ids`. Whitening matters: token embeddings crowd in a few directions, so
    without it the top tokens of *any* direction, a random one too, look alike.
    """
    rows = lm.unembedding_rows().float()
    base = rows if vocab_ids is None else rows[vocab_ids.to(rows.device)]
    centred = rows - base.mean(0)
    if whiten:
        values, basis = torch.linalg.eigh(torch.cov(base.T))
        centred = centred @ (basis * values.clamp_min(1e-6 * values.max()).rsqrt())
    return F.normalize(centred, dim=1)


def coherence(
    ids: Int[Tensor, "n k"],
    units: Float[Tensor, "d_vocab d_model"],
    stem: Int[Tensor, " d_vocab"],
    m: int = 15,
) -> Float[Tensor, " n"]:
    """Mean pairwise cosine of the first `m` tokens of each list that are no variants of one another.

    `units` are unit vectors (`unit_embeddings`), `stem` says which tokens are variants (`stems`). With n unit vectors
    u and S their sum, the mean over pairs is (|S|^2 - n) / (n (n - 1)). Lists of fewer than 2 stems score 0.
    """
    scores = []
    for part in ids.split(4096):
        keep = first_of_stem(part, stem, m)
        n = keep.sum(1).float()
        total = F.embedding_bag(part.to(units.device), units, mode="sum", per_sample_weights=keep.to(units)).cpu()
        scores.append((total.square().sum(1) - n) / (n * (n - 1)).clamp_min(1))
    return torch.cat(scores)


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

    def best(
        self, lm: LanguageModel, layer: int, n: int = 3, words: Int[Tensor, " m"] | None = None, need: float = 0.7
    ) -> list[ConceptVector]:
        """The `n` most coherent ends in a layer. With `words`: only where a share `need` of the top 15 is in `words`."""
        rows = slice(self.index(layer, 0), self.index(layer, self.d_mlp - 1) + 1)
        scores = self.coherence[rows].clone()
        if words is not None:
            readable = torch.zeros(len(self.stem), dtype=torch.bool)
            readable[words] = True
            share = readable[self.tokens.signed_ids()[rows, :, :15]].float().mean(2)
            scores[share < need] = -torch.inf
        order = scores.flatten().topk(n)
        kept = [int(i) for i, value in zip(order.indices, order.values, strict=True) if value > -torch.inf]
        return [self.describe(lm, layer, i // 2, 1 - 2 * (i % 2)) for i in kept]


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
    tokens = project(lm, all_value_vectors(lm, layers), k, vocab_ids)
    units, stem = unit_embeddings(lm, vocab_ids), stems(lm)
    ends = [coherence(ids, units, stem) for ids in (tokens.top_ids, tokens.bottom_ids)]
    return Atlas(layers, lm.d_mlp, tokens, torch.stack(ends, 1), units, stem, vocab_ids)


# ---- search ---------------------------------------------------------------------------------------------
def word_effects(
    lm: LanguageModel, vectors: Float[Tensor, "n d_model"], word_ids: Int[Tensor, " m"]
) -> Float[Tensor, "n m"]:
    """Logit effect of each vector on each word, in standard deviations of its effects over the whole vocabulary.

    Mean and variance over the vocabulary come from the mean and covariance of the unembedding: v -> v.mean, v.C.v.
    """
    rows = lm.unembedding_rows().float()
    folded = vectors.float() * lm.final_gain().float()
    mean, spread = folded @ rows.mean(0), ((folded @ torch.cov(rows.T)) * folded).sum(1).clamp_min(1e-20).sqrt()
    return (folded @ rows[word_ids.to(rows.device)].T - mean[:, None]) / spread[:, None]


def search(lm: LanguageModel, words: Iterable[str], n: int = 10, atlas: Atlas | None = None) -> list[ConceptVector]:
    """The `n` vector ends that promote `words` most, either sign, ranked by `tail_score`.

    Words that are no single token are left out. `atlas` restricts the search to its layers and adds the tokens.
    Raises ConceptLabError when no word is left.
    """
    words = list(words)
    found = lm.single_tokens(words)
    if not found:
        raise ConceptLabError(
            f"None of the words {', '.join(words[:5]) or '(none)'} is a single token of {lm.name}; try other words."
        )
    layers = tuple(range(lm.n_layers)) if atlas is None else atlas.layers
    effects = word_effects(lm, all_value_vectors(lm, layers), torch.tensor(list(found.values()))).cpu()
    scores = torch.stack([tail_score(effects), tail_score(-effects)], 1)
    results = []
    for i in scores.flatten().topk(n).indices.tolist():
        layer, neuron, sign = layers[i // 2 // lm.d_mlp], i // 2 % lm.d_mlp, 1 - 2 * (i % 2)
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


def intrinsic(
    lm: LanguageModel, vectors: Sequence[ConceptVector], edit: WeightEdit, k: int = 200
) -> list[dict[str, float]]:
    """What an edit did to each vector itself: `jaccard` of the `k` strongest tokens (at its signed end), `cosine`, `l2`.

    The three intrinsic measures of ConceptVectors. A vector that was set to zero has cosine 0 by convention.
    """

    def values() -> Tensor:
        return torch.stack([v.sign * lm.value_vectors(v.layer)[v.neuron] for v in vectors]).float()

    def top() -> list[set[int]]:
        return [set(row) for row in project(lm, values().to(lm.dtype), k, cache=False).top_ids.tolist()]

    before, tokens = values(), top()
    with edit.applied(lm):
        after, tokens_after = values(), top()
    rows = []
    for a, b, s, t in zip(before, after, tokens, tokens_after, strict=True):
        jaccard = len(s & t) / len(s | t) if float(b.norm()) > 0 else 0.0  # a zero vector promotes nothing
        rows.append({"jaccard": jaccard, "cosine": float(F.cosine_similarity(a, b, 0)), "l2": float((a - b).norm())})
    return rows
