"""Rows chosen where the fact is looked up: by the effect of neurons at the subject's tokens on the answer.

    effect_j = sum over facts and subject tokens of n_j * d log p(answer) / d n_j
    v_j <- (1 - c) v_j   for the neurons with the largest effect on the concept's facts beyond that on other facts

Attribution patching (Nanda 2023; Syed et al., arXiv 2310.10348): the first-order effect of setting an activation to 0.
Neurons are taken by what they *do* for the retrieval at the subject, not by the words that they promote (`zeroed`) or
by a dictionary's features (`pisces`). "Elsewhere" is measured at every token of the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import NotPossible
from ...data import Concept, Question, general_questions, question_stem
from ...edits import WeightEdit, value_edit
from ...models import LanguageModel
from ..method import Method
from .keys import answer_logprob, subject_ends

if TYPE_CHECKING:
    from ..shared import Shared


@dataclass(frozen=True)
class LookupConfig:
    """How many neurons, and what becomes of their value vectors."""

    n: int = 100
    c: float = 1.0  # 1: zero, 2: reversed
    n_facts: int = 16  # answered dev questions of each group, none on which a strength is chosen
    deepest: float = 0.6  # share of the depth: the subject is looked up in the layers before it


def effects(
    lm: LanguageModel, facts: Sequence[Question], layers: Sequence[int], words: Sequence[str] | None, batch: int = 4
) -> Float[Tensor, "layers d_mlp"]:
    """Mean effect per fact of each neuron on the log-probability of the answer (nats, summed over its tokens).

    At the last tokens of `words` in the question; None: at all of its tokens but the first.
    """
    total, n = torch.zeros(len(layers), lm.d_mlp, device=lm.device), 0
    for start in range(0, len(facts), batch):
        stems = [[*lm.start_ids, *lm.encode(question_stem(q, ""))] for q in facts[start : start + batch]]
        answers = [lm.encode(f" {q.gold}") for q in facts[start : start + batch]]
        ids, mask = lm.pad([a + b for a, b in zip(stems, answers, strict=True)])
        place = torch.arange(ids.shape[1], device=ids.device)
        stem_end = torch.tensor([len(s) for s in stems], device=ids.device)[:, None]
        at = (place < stem_end) & (place > 0) & mask
        if words is not None:
            at &= subject_ends(lm, ids, words)[0]
        n += int(at.any(1).sum())
        total += _effects_of(lm, ids, mask, at, (place >= stem_end) & mask, layers)
    if not n:
        raise NotPossible("No dev question that may be shown names the concept by one of its words.")
    return total / n


def _effects_of(lm: LanguageModel, ids: Tensor, mask: Tensor, at: Tensor, answer: Tensor, layers: Sequence[int]):
    zeros: dict[int, Tensor] = {}
    seen: dict[int, Tensor] = {}

    def probe(layer: int):
        def hook(n: Tensor) -> Tensor:
            seen[layer] = n.detach()
            zeros[layer] = torch.zeros_like(n, requires_grad=True)
            return n + zeros[layer]

        return hook

    with torch.enable_grad(), lm.intervene({("neurons", layer): probe(layer) for layer in layers}):
        gradients = torch.autograd.grad(answer_logprob(lm, ids, mask, answer), [zeros[layer] for layer in layers])
    return torch.stack([(seen[x] * g)[at].float().sum(0) for x, g in zip(layers, gradients, strict=True)])


@torch.no_grad()
def turned_vectors(lm: LanguageModel, places: Sequence[tuple[int, int]], c: float, info: dict) -> WeightEdit:
    """`v <- (1 - c) v` for the value vectors at `(layer, neuron)`."""
    edit = WeightEdit.of(lm, {})
    for layer in sorted({layer for layer, _ in places}):
        neurons = sorted(neuron for where, neuron in places if where == layer)
        edit = edit + value_edit(lm, layer, neurons, -c * lm.value_vectors(layer)[neurons].float())
    return WeightEdit.of(lm, edit.changes, info)


def fit_lookup(lm: LanguageModel, concept: Concept, config: LookupConfig, shared: Shared) -> WeightEdit:
    """Effects once, on facts of the concept, its neighbour and anything else; then the `n` neurons that stand out."""
    layers = range(max(1, round(config.deepest * lm.n_layers)))

    def scores() -> Tensor:
        judged = shared.judge.questions
        pools = {"target": concept.dev, "general": general_questions("dev")}
        pools |= {"neighbour": concept.neighbour.dev} if concept.neighbour else {}
        shown = {k: [q for q in pool if q not in judged.get(k, ())][: config.n_facts] for k, pool in pools.items()}
        own = effects(lm, shown.pop("target"), layers, concept.words)
        others = [effects(lm, facts, layers, None).abs() for facts in shown.values() if facts]
        return torch.where(own > 0, own - torch.stack(others).amax(0), -torch.inf)  # the most selective come first

    score = shared.made(("lookup", config.n_facts, config.deepest), scores)
    chosen = score.flatten().argsort(descending=True, stable=True)[: int(config.n)].tolist()
    places = [(i // lm.d_mlp, i % lm.d_mlp) for i in chosen if bool(score.flatten()[i].isfinite())]
    if not places:
        raise NotPossible("No neuron helps to retrieve the concept's facts.")
    return turned_vectors(lm, places, config.c, {"method": "lookup", "n": len(places), "c": config.c})


LOOKUP = Method(
    "lookup", "localised", "ours: rows by attribution patching (arXiv 2310.10348) at the subject's tokens",
    LookupConfig(), fit_lookup, {"n": (20, 50, 100, 200, 500, 1000), "c": (1.0, 2.0)}, (),
    "48 gradients, 40 s",
)  # fmt: skip
