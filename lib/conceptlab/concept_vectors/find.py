"""The value vectors that promote given words most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError
from ..models import LanguageModel
from .atlas import Atlas, ConceptVector, all_value_vectors, word_effects


def search(
    lm: LanguageModel,
    words: Iterable[str],
    n: int = 10,
    atlas: Atlas | None = None,
    layers: Sequence[int] | None = None,
) -> list[ConceptVector]:
    """The `n` vector ends that promote `words` most, either sign, ranked by `tail_score`.

    Words that are no single token are left out. With `atlas` its layers are searched and the tokens are added;
    `layers` restricts the search. Raises ConceptLabError when no word, or no layer, is left.
    """
    words = list(words)
    found = lm.single_tokens(words)
    if not found:
        raise ConceptLabError(
            f"None of the words {', '.join(words[:5]) or '(none)'} is a single token of {lm.name}; try other words."
        )
    searched = tuple(range(lm.n_layers)) if atlas is None else atlas.layers
    if layers is not None:
        searched = tuple(layer for layer in searched if layer in layers)
        if not searched:
            raise ConceptLabError(f"None of the layers {list(layers)[:5]} can be searched; name layers of the atlas.")
        atlas = None if atlas is None else atlas.only(searched)
    effects = word_effects(lm, all_value_vectors(lm, searched), torch.tensor(list(found.values())), atlas)
    scores = torch.stack([tail_score(effects), tail_score(-effects)], 1)
    results = []
    for i in scores.flatten().topk(min(n, scores.numel())).indices.tolist():
        layer, neuron, sign = searched[i // 2 // lm.d_mlp], i // 2 % lm.d_mlp, 1 - 2 * (i % 2)
        tokens = () if atlas is None else atlas.describe(lm, layer, neuron, sign).tokens
        results.append(ConceptVector(layer, neuron, sign, float(scores.flatten()[i]), tokens))
    return results


def tail_score(effects: Float[Tensor, "n m"], beyond: float = 3.0) -> Float[Tensor, " n"]:
    """Mean over words of what exceeds `beyond` standard deviations: strong effects on some words, not weak on all."""
    return (effects - beyond).clamp_min(0).mean(1)
