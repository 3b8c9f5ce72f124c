"""Where does editing matter most for facts? The measurement behind the choice of layers for the dictionaries.

In each layer alone, the directions that set a concept's texts apart from other texts are turned round in the down
projection, and the change of the right answers' log-probability is measured on the dev questions of the concept, its
neighbour and on general questions. The control removes as many directions that set two random halves of other texts
apart.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import Cell, Store, bootstrap, say, table_path
from ..data import Concept, evidence_texts, list_concepts, load_concept, text_means
from ..erasure import ablation_edit
from ..evaluation import SETS, concept_questions, gold_logprobs
from ..models import LanguageModel

METHODS = ("contrast", "random")


def layers(
    lm: LanguageModel,
    path: Path | None = None,
    concepts: Sequence[str] | None = None,
    k: int = 5,
    strength: float = 2.0,
    n_questions: int = 40,
    n_texts: int = 60,
    seed: int = 0,
    replace: bool = False,
) -> Path:
    """One cell per concept, layer and method (`contrast` directions, `random` ones); `budget` is the layer.

    The table is written to `path` (default: its place in data/results), see `Store` for interruptions and `replace`.
    """
    concepts = list_concepts() if concepts is None else list(concepts)
    settings: dict[str, Any] = {"k": k, "strength": strength, "n_questions": n_questions, "n_texts": n_texts}
    cells = {name: [Cell(name, m, budget=i) for i in range(lm.n_layers) for m in METHODS] for name in concepts}
    with Store(
        path or table_path("layers", lm.name), experiment="layers", model=lm.name, fingerprint=lm.fingerprint(),
        settings=settings, seed=seed, device=str(lm.device), replace=replace,
    ) as store:  # fmt: skip
        store.progress([cell for grid in cells.values() for cell in grid])
        for name, grid in cells.items():
            if any(map(store.missing, grid)):
                _concept(lm, store, load_concept(name), grid, **settings)
        return store.finish()


def _concept(
    lm: LanguageModel,
    store: Store,
    concept: Concept,
    grid: Sequence[Cell],
    k: int,
    strength: float,
    n_questions: int,
    n_texts: int,
) -> None:
    sets = concept_questions(concept, "dev")
    questions = [q for s in SETS for q in sets[s][:n_questions]]
    sizes = [len(sets[s][:n_questions]) for s in SETS]
    before = gold_logprobs(lm, questions)
    directions = contrast_directions(lm, concept, k, store.seed, n_texts)
    for cell in filter(store.missing, grid):
        layer = int(cell.budget)
        span = {("mlp_output", layer): directions[cell.method][layer].T}
        with ablation_edit(lm, span, strength).applied(lm):
            change = (gold_logprobs(lm, questions) - before).split(sizes)
        store.add(cell, {s: bootstrap(c) for s, c in zip(SETS, change, strict=True)})
        say(f"{concept.name} layer {layer} {cell.method}: " + ", ".join(f"{float(c.mean()):+.2f}" for c in change))


@torch.no_grad()
def contrast_directions(
    lm: LanguageModel, concept: Concept, k: int, seed: int = 0, n_texts: int = 60, n_ctx: int = 96
) -> dict[str, list[Float[Tensor, "d_model k"]]]:
    """Per layer, orthonormal: what tells the concept's texts from others, and what tells two halves of others apart.

    The first direction is the difference of the mean MLP outputs; the next ones are the principal directions of the
    texts' own differences from the background's mean.
    """
    own, _, far = evidence_texts(concept, n_texts, seed)
    random.Random(seed).shuffle(far)
    half = len(far) // 2
    groups = {"contrast": (own, far), "random": (far[:half], far[half:])}
    return {
        name: [_basis(a, b, k) for a, b in zip(*(_text_means(lm, part, n_ctx) for part in pair), strict=True)]
        for name, pair in groups.items()
    }


def _basis(positive: Tensor, negative: Tensor, k: int) -> Tensor:
    centre = negative.mean(0)
    first = positive.mean(0) - centre
    _, _, V = torch.linalg.svd(positive - centre, full_matrices=False)
    Q, _ = torch.linalg.qr(torch.cat([first[:, None], V[:k].T], 1))
    return Q[:, :k]


def _text_means(lm: LanguageModel, texts: Sequence[str], n_ctx: int) -> list[Float[Tensor, "texts d_model"]]:
    """Per layer: mean MLP output of each text, its first position left out."""
    sites = [("mlp_output", layer) for layer in range(lm.n_layers)]
    return list(text_means(lm, texts, sites, n_ctx=n_ctx, batch_size=1).values())
