"""Edits to compare an erasure with: one that needs no dictionary, and controls that know nothing of the concept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from .cache import ConceptLabError
from .concept_vectors import ConceptVector, noise_edit, scale_edit, search
from .concepts import Concept
from .edits import Dense, LowRank, Rows, WeightEdit, match_norms, random_like
from .models import LanguageModel
from .pisces import Dictionaries, Feature, directional_edit, random_features
from .pisces.edit import columns_for, rows_for
from .pisces.features import by_layer


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


def closest(
    lost: Callable[[WeightEdit], float], edits: Iterable[WeightEdit], wanted: float, rising: bool = False
) -> WeightEdit:
    """The edit whose `lost(edit)` is nearest to `wanted`; the first of equals.

    `rising`: they come from weak to strong, and none is tried after the first that costs `wanted`. Raises
    ConceptLabError for no edit.
    """
    best: tuple[float, WeightEdit] | None = None
    for edit in edits:
        cost = lost(edit)
        if best is None or abs(cost - wanted) < best[0]:
            best = abs(cost - wanted), edit
        if rising and cost >= wanted:
            break
    if best is None:
        raise ConceptLabError("There is no edit to choose from; give at least one strength.")
    return best[1]


def needle_vectors(lm: LanguageModel, concept: Concept, n: int = 200) -> list[ConceptVector]:
    """Candidates for `needle_edit`: the value vectors that promote the concept's words most, one end per neuron."""
    found, seen = [], set()
    for vector in search(lm, concept.words, 2 * min(n, lm.n_layers * lm.d_mlp)):
        if (vector.layer, vector.neuron) not in seen:
            seen.add((vector.layer, vector.neuron))
            found.append(vector)
    return found[:n]


def random_feature_edit(
    lm: LanguageModel, saes: Dictionaries, features: Sequence[Feature], like: WeightEdit, seed: int = 0
) -> WeightEdit:
    """A control: as many random features of the same layers, turned round, with the norms per layer of `like`.

    Directional, because the published edit may touch hardly any row for a feature that no neuron writes, and scaling
    such an edit up to the norm of `like` would test a few rows instead of random features.
    """
    drawn = random_features(saes, features, seed)
    edit = match_norms(directional_edit(lm, saes, drawn, 2.0), like)
    return WeightEdit(lm.name, edit.changes, edit.info | {"control": "random features", "seed": seed})


def random_norm_edit(like: WeightEdit, seed: int = 0) -> WeightEdit:
    """A control: Gaussian changes with the norms of `like`, on as many columns of each weight, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    elsewhere = {}
    for name, change in like.changes.items():
        delta = change.dense()
        if isinstance(change, Rows):
            rows = torch.randperm(len(delta), generator=generator)[: len(change.index.unique())]
            elsewhere[name] = Rows(rows, torch.ones(len(rows), delta.shape[1]).to(delta), change.n_rows)
        else:
            columns = torch.randperm(delta.shape[1], generator=generator)[: int((delta.abs().amax(0) > 0).sum())]
            mask = torch.zeros_like(delta)
            mask[:, columns] = 1.0
            elsewhere[name] = Dense(mask)
    edit = match_norms(random_like(WeightEdit(like.model, elsewhere), seed), like)
    return WeightEdit(like.model, edit.changes, {"control": "random edit of equal norm, other rows", "seed": seed})


def random_direction_edit(like: WeightEdit, seed: int = 0) -> WeightEdit:
    """A control: Gaussian changes of the same weights *and columns* with the norms of `like`.

    It keeps the rows, so it shows how much of an edit's selectivity is in the neurons that it goes through, whatever
    they are made to write.
    """
    return random_like(like, seed)


def random_decoder_edit(
    lm: LanguageModel, saes: Dictionaries, features: Sequence[Feature], like: WeightEdit, seed: int = 0
) -> WeightEdit:
    """A control: the PISCES edit `like` of `features`, but every change is written along another feature's direction.

    Rows and coefficients stay, and so does everything that directions of a dictionary have in common: one for many
    rows, in the subspace that the layer writes. What is left of the effect is not due to *these* features' directions.
    """
    changes = {}
    for layer, drawn in by_layer(lm, saes, random_features(saes, features, seed)).items():
        change = like.changes[lm.down_proj_name(layer)]
        d = saes[layer].W_dec[[f.index for f in drawn]].to(rows_for(lm, saes[layer]))
        changes[lm.down_proj_name(layer)] = LowRank(columns_for(lm, saes[layer], d), change.right)
    return WeightEdit(like.model, changes, {"control": "directions of random features", "seed": seed})
