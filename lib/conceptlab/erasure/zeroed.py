"""Zeroed concept vectors: the value vectors that promote a concept's words most, set to zero."""

from __future__ import annotations

from collections.abc import Sequence

from ..concept_vectors import ConceptVector, noise_edit, scale_edit, search
from ..core import ConceptLabError
from ..data import Concept
from ..edits import WeightEdit
from ..models import LanguageModel


def needle_edit(
    lm: LanguageModel,
    vectors: Sequence[ConceptVector],
    n: int = 20,
    kind: str = "zero",
    c: float = 1.0,
    seed: int = 0,
) -> WeightEdit:
    """Ablate the `n` first concept vectors (Needle, ConceptVectors section 5, without its training loop).

    `vectors`: what `concept_vectors.search(lm, concept.words, ...)` found, best first. `kind`: "zero" sets them to
    zero, "noise" adds Gaussian noise of `c` times their length. Raises ConceptLabError when there are fewer than `n`.
    """
    chosen = list(vectors[: int(n)])
    if len(chosen) < n or n < 1:
        raise ConceptLabError(f"Needle was asked for {n} of {len(vectors)} vectors; search for more, or ask for fewer.")
    if kind not in ("zero", "noise"):
        raise ConceptLabError(f'Needle sets vectors to "zero" or adds "noise"; got {kind!r}.')
    edit = scale_edit(lm, chosen, 0.0) if kind == "zero" else noise_edit(lm, chosen, c, seed)
    return WeightEdit(lm.name, edit.changes, edit.info | {"method": "needle", "n": int(n), "kind": kind})


def needle_vectors(lm: LanguageModel, concept: Concept, n: int = 200) -> list[ConceptVector]:
    """Candidates for `needle_edit`: the value vectors that promote the concept's words most, one end per neuron."""
    found, seen = [], set()
    for vector in search(lm, concept.words, 2 * min(n, lm.n_layers * lm.d_mlp)):
        if (vector.layer, vector.neuron) not in seen:
            seen.add((vector.layer, vector.neuron))
            found.append(vector)
    return found[:n]
