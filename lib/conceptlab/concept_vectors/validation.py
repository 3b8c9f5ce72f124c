"""Is it a concept vector? Noise, scaling and clamping, with matched vectors as controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError
from ..edits import WeightEdit, value_edit
from ..evaluation import QuestionScores, trace, vector_residue
from ..models import LanguageModel
from .atlas import ConceptVector
from .replay import Replay


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
    return replace(whole, info=info | {"vectors": [[v.layer, v.neuron] for v in vectors]})


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
    return _edit(lm, vectors, lambda values: values * (factor - 1.0), {"edit": "scale", "times": factor})


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
    first = min(v.layer for v in vectors)
    found: list[list[Tensor]] = [[] for _ in replays]
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
