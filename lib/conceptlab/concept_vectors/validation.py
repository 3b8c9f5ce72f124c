"""Is it a concept vector? Noise, scaling and clamping, with matched vectors as controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError
from ..data import FEW_SHOT, Question, question_stem
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
    """For each vector the neuron of its layer that writes as much on `texts`, none of `avoid`.

    What a neuron writes is its mean |activation| times the length of its value vector; start tokens do not count.
    """
    ids, mask = lm.tokens(texts)
    mask[:, 0] = False
    sites = [("neurons", layer) for layer in sorted({v.layer for v in like})]
    found = lm.capture(ids, sites, mask)
    size = {
        layer: found[kind, layer][mask].abs().mean(0) * lm.value_vectors(layer).norm(dim=1) for kind, layer in sites
    }
    return nearest_in_size(like, size, avoid)


def answer_sizes(
    lm: LanguageModel, questions: Sequence[Question], layers: Sequence[int]
) -> dict[int, Float[Tensor, " d_mlp"]]:
    """By layer: how much each neuron writes at the positions at which the options of `questions` are scored.

    The root mean square of its activation there, times the length of its value vector.
    """
    sites = [("neurons", layer) for layer in sorted(set(layers))]
    squares = {site: torch.zeros(lm.d_mlp, device=lm.device) for site in sites}
    count = 0
    for q in questions:
        stem = FEW_SHOT + question_stem(q, FEW_SHOT)
        ids, mask = lm.tokens([f"{stem} {option}" for option in q.options])
        scored = mask.clone()  # a token is predicted one position before it stands
        scored[:, : int(lm.tokens([stem])[1].sum()) - 1] = False
        scored[torch.arange(len(ids)), mask.sum(1) - 1] = False
        for site, found in lm.capture(ids, sites, mask).items():
            squares[site] += found[scored].float().square().sum(0)
        count += int(scored.sum())
    return {site[1]: (x / count).sqrt() * lm.value_vectors(site[1]).norm(dim=1) for site, x in squares.items()}


def nearest_in_size(
    like: Sequence[ConceptVector], size: Mapping[int, Float[Tensor, " d_mlp"]], avoid: Sequence[ConceptVector] = ()
) -> list[ConceptVector]:
    """For each vector the neuron of its layer nearest to it in `size` (as a ratio), none twice, none of `avoid`."""
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


def swap_edit(lm: LanguageModel, vectors: Sequence[ConceptVector], others: Sequence[ConceptVector]) -> WeightEdit:
    """Give each value vector the direction of its partner among `others`, and leave its length as it is."""
    parts = []
    for v, other in zip(vectors, others, strict=True):
        mine, theirs = (lm.value_vectors(x.layer)[x.neuron] for x in (v, other))
        parts.append(value_edit(lm, v.layer, [v.neuron], (F.normalize(theirs, dim=0) * mine.norm() - mine)[None]))
    return reduce(add, parts)


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
