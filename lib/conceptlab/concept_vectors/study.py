"""The causal validation of ConceptVectors (arXiv 2406.11614), with the controls that decide: noise, zeroing, turning.

Replays are made by the caller, once per list of questions, so that an edit of a late layer costs its last layers only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError, Interval, bootstrap, paired_bootstrap
from ..data import Concept
from ..edits import WeightEdit
from ..models import LanguageModel
from .atlas import Atlas, ConceptVector
from .find import search
from .replay import Replay
from .validation import (
    answer_shift,
    answer_sizes,
    matched_vectors,
    nearest_in_size,
    noise_shift,
    random_vectors,
    scale_edit,
)

Candidates = Mapping[str, Sequence[ConceptVector]]  # "concept", "matched", "words", "random" -> vectors, best first


@dataclass(frozen=True)
class NoiseStudy:
    """Answer shifts (0 to 100 %) under noise; one tensor `[questions]` per concept."""

    strength: float  # c: length of the noise, in lengths of the vector
    sizes: tuple[int, ...]  # vectors that are disturbed together
    concepts: tuple[str, ...]
    shifts: Mapping[tuple[str, str, int], Sequence[Tensor]]  # (kind of vectors, questions asked, size) -> per concept

    def pooled(self, kind: str, asked: str, n: int) -> Float[Tensor, " questions"]:
        """All questions of all concepts; unrelated ones are the same for all, so they are averaged over concepts."""
        parts = self.shifts[kind, asked, n]
        return torch.stack(list(parts)).mean(0) if asked == "unrelated" else torch.cat(list(parts))

    def mean(self, kind: str, asked: str, n: int, n_resamples: int = 2000) -> Interval:
        """Mean shift, with the interval over questions."""
        return bootstrap(self.pooled(kind, asked, n), n_resamples, over="questions")

    def gap(self, n: int, n_resamples: int = 2000) -> Interval:
        """Concept vectors minus equally active ones, on the same concept questions."""
        own, control = (self.pooled(kind, "concept", n) for kind in ("concept", "matched"))
        return paired_bootstrap(own, control, n_resamples, over="questions")


def concept_candidates(
    lm: LanguageModel, concept: Concept, atlas: Atlas, layers: Sequence[int], n: int = 20, seed: int = 1
) -> dict[str, list[ConceptVector]]:
    """The `n` vectors of `layers` that promote the concept's words most, and three controls of the same layers.

    `matched`: neurons that write as much where the options of the concept's dev questions are scored; `words`: those
    that write as much on the words of these questions; `random`: any others.
    """
    found = search(lm, concept.words, 5 * n, atlas, layers)
    best = found[:n]
    at_answers = answer_sizes(lm, concept.dev[:6], [v.layer for v in best])
    return {
        "concept": best,
        "matched": nearest_in_size(best, at_answers, avoid=found),
        "words": matched_vectors(lm, best, [q.q for q in concept.dev[:10]], avoid=found),
        "random": random_vectors(lm, best, seed),
    }


def strength_grid(
    lm: LanguageModel,
    own: Mapping[str, Replay],
    unrelated: Replay,
    chosen: Mapping[str, Candidates],
    strengths: Sequence[float],
) -> dict[float, tuple[float, float]]:
    """Strength of the noise -> mean shift (%) on the concepts' own questions and on unrelated ones; one vector each."""
    if not own:
        raise ConceptLabError("A grid of strengths needs the questions of one concept at least.")
    grid = {}
    for c in strengths:
        pairs = [noise_shift(lm, [own[x], unrelated], chosen[x]["concept"][:1], c, [0]) for x in own]
        mine, other = (100 * torch.cat(part).mean().item() for part in zip(*pairs, strict=True))
        grid[c] = (mine, other)
    return grid


def noise_study(
    lm: LanguageModel,
    own: Mapping[str, Replay],
    unrelated: Replay,
    chosen: Mapping[str, Candidates],
    strength: float,
    sizes: Sequence[int] = (1, 5, 20),
    draws: int = 1,
) -> NoiseStudy:
    """Noise on each concept's best vectors and on their controls; asked are concept questions and unrelated ones.

    `draws`: how often the noise on a single vector is drawn anew. Unrelated questions are asked under noise on concept
    vectors and on `matched` ones.
    """
    shifts: dict[tuple[str, str, int], list[Tensor]] = {}
    for concept, replay in own.items():
        for n in sizes:
            for kind, vectors in chosen[concept].items():
                asked = {"concept": replay} | ({"unrelated": unrelated} if kind in ("concept", "matched") else {})
                seeds = range(draws if n == 1 else 1)
                found = noise_shift(lm, list(asked.values()), vectors[:n], strength, seeds)
                for name, shift in zip(asked, found, strict=True):
                    shifts.setdefault((kind, name, n), []).append(100 * shift)
    return NoiseStudy(float(strength), tuple(sizes), tuple(own), shifts)


def scaled_margins(
    lm: LanguageModel,
    own: Mapping[str, Replay],
    chosen: Mapping[str, Candidates],
    factor: float,
    sizes: Sequence[int],
    kinds: Sequence[str] = ("concept", "matched"),
) -> dict[str, dict[int, dict[str, Float[Tensor, " questions"]]]]:
    """Kind -> size -> concept -> change of each question's margin (nats) under vectors multiplied by `factor`."""
    table: dict[str, dict[int, dict[str, Tensor]]] = {}
    for kind in kinds:
        for n in sizes:
            row = table.setdefault(kind, {}).setdefault(n, {})
            for concept, replay in own.items():
                vectors = chosen[concept][kind][:n]
                with scale_edit(lm, vectors, factor).applied(lm):
                    row[concept] = replay.score(min(v.layer for v in vectors)).margin - replay.clean.margin
    return table


def dose_effects(
    lm: LanguageModel,
    own: Mapping[str, Replay],
    chosen: Mapping[str, Candidates],
    edits: Mapping[str, Callable[[Sequence[ConceptVector], Sequence[ConceptVector]], WeightEdit]],
    n: int = 1,
) -> dict[str, dict[str, tuple[Float[Tensor, " questions"], Float[Tensor, " questions"]]]]:
    """Edit -> kind of vectors -> answer shift (%) and change of the margin (nats) of every question of all concepts.

    An edit is made from `n` vectors and their partners: of a concept's vectors their matches, and the other way round.
    """
    table: dict[str, dict[str, tuple[Tensor, Tensor]]] = {}
    for name, make in edits.items():
        for kind, partner in (("concept", "matched"), ("matched", "concept")):
            shifts, margins = [], []
            for concept, replay in own.items():
                vectors = chosen[concept][kind][:n]
                with make(vectors, chosen[concept][partner][:n]).applied(lm):
                    scores = replay.score(min(v.layer for v in vectors))
                shifts.append(100 * answer_shift(replay.clean, scores))
                margins.append(scores.margin - replay.clean.margin)
            table.setdefault(name, {})[kind] = torch.cat(shifts), torch.cat(margins)
    return table


def natural_activation(
    lm: LanguageModel, vector: ConceptVector, texts: Sequence[str], n_ctx: int = 64
) -> Float[Tensor, " positions"]:
    """The neuron's activations on texts, positive towards `vector`'s end, without each text's first position."""
    ids, mask = lm.tokens(texts, n_ctx=n_ctx)
    mask[:, 0] = False
    site = ("neurons", vector.layer)
    return vector.sign * lm.capture(ids, [site], mask)[site][..., vector.neuron][mask].float().cpu()
