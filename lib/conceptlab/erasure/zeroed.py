"""Zeroed concept vectors: the value vectors that promote a concept's words most, set to zero.

ConceptVectors' Needle (Hong et al., arXiv 2406.11614, section 5) finds one such vector by hand and by experiment and
adds noise to it, and trains; here the search is automatic and nothing is trained, so it is not called by that name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..concept_vectors import ConceptVector, scale_edit, search
from ..core import NotPossible
from ..data import Concept
from ..edits import WeightEdit
from ..models import LanguageModel
from .method import Axes, Method

if TYPE_CHECKING:
    from .shared import Shared


def zeroed_edit(lm: LanguageModel, vectors: Sequence[ConceptVector], n: int = 20) -> WeightEdit:
    """Set the `n` first concept vectors to zero.

    `vectors`: what `concept_vectors.search(lm, concept.words, ...)` found, best first. Raises NotPossible when there
    are fewer than `n`.
    """
    chosen = list(vectors[: int(n)])
    if len(chosen) < n or n < 1:
        raise NotPossible(f"{n} vectors were to be set to zero, of {len(vectors)}; search for more, or ask for fewer.")
    edit = scale_edit(lm, chosen, 0.0)
    return replace(edit, info=edit.info | {"method": "zeroed_vectors", "n": int(n)})


def promoting_vectors(lm: LanguageModel, concept: Concept, n: int = 200) -> list[ConceptVector]:
    """Candidates for `zeroed_edit`: the value vectors that promote the concept's words most, one end per neuron."""
    found, seen = [], set()
    for vector in search(lm, concept.words, 2 * min(n, lm.n_layers * lm.d_mlp)):
        if (vector.layer, vector.neuron) not in seen:
            seen.add((vector.layer, vector.neuron))
            found.append(vector)
    return found[:n]


# ---- methods ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ZeroedConfig:
    """How many vectors."""

    n: int = 20


def fit_zeroed(lm: LanguageModel, concept: Concept, config: ZeroedConfig, shared: Shared) -> WeightEdit:
    """The `n` vectors that promote the concept's words most, set to zero."""
    return zeroed_edit(lm, shared.vectors(config.n), config.n)


def zeroed_axes(axes: Axes, shared: Shared) -> Axes:
    """Counts that the model has neurons for."""
    there = shared.lm.n_layers * shared.lm.d_mlp
    return {"n": [n for n in axes["n"] if n <= there]}


SOURCE = "ConceptVectors (arXiv 2406.11614), section 5, with the vectors found automatically and without training"
ZEROED = Method(
        "zeroed_vectors", "vectors", SOURCE, ZeroedConfig(), fit_zeroed,
        {"n": (1, 2, 5, 10, 20, 50, 100, 150, 200, 300, 500, 1000)}, cost="2 s", axes=zeroed_axes,
    )  # fmt: skip
# As many as cost the target what PISCES costs it, whatever else breaks
ZEROED_MATCHED = Method(
        "zeroed_vectors_matched", "vectors", SOURCE + "; as many as take what PISCES takes", ZeroedConfig(), fit_zeroed,
        {"n": (100, 300, 1000, 2000, 3000, 4000, 5000, 6000, 8000, 10_000, 14_000, 20_000)}, needs=("pisces",),
        cost="1 min", axes=zeroed_axes, match="pisces",
    )  # fmt: skip
