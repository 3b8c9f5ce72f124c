"""Undoing: an attacker who knows the directions that an edit writes along takes them out of the weights.

Lucki et al. (arXiv 2409.18025) removed the direction that an unlearned model had learned to write. Here the directions
are the leading left singular vectors of each changed matrix' delta.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError, NotPossible
from ..edits import Intervention, LowRank, WeightEdit
from ..models import LanguageModel
from .base import AttackResult, Cost


@dataclass(frozen=True)
class UndoConfig:
    """What the attacker knows and does."""

    directions: tuple[int, ...] = (1, 4, 16)  # k, leading directions per matrix
    seed: int = 0  # of the random directions of the control


@torch.no_grad()
def undo(
    lm: LanguageModel,
    edit: Intervention | None,
    evaluate: Callable[[LanguageModel], object],
    cfg: UndoConfig = UndoConfig(),
) -> AttackResult:
    """Per k: `evaluate(lm)` with the k leading directions of every changed matrix ablated or undone.

    Control: as many random directions. Changes of the embeddings are left alone. Raises for interventions that are no
    weight edits or that change no matrix of a block, for unknown ways and for no directions.
    """
    if not isinstance(edit, WeightEdit) or not edit.changes:
        raise NotPossible("Undoing needs the WeightEdit itself; other interventions have no delta to look at.")
    if not cfg.directions or min(cfg.directions) < 1:
        raise ConceptLabError(f"Undoing takes at least one direction per matrix; got {list(cfg.directions)}.")
    start = time.perf_counter()
    generator = torch.Generator().manual_seed(cfg.seed)
    embedding = lm.embedding_name()  # is looked up, not written along
    changed = {name: change for name, change in edit.changes.items() if not name.startswith(embedding)}
    named = {name: change for name, change in changed.items() if len(change.shape) == 2}
    if not named:
        raise NotPossible("The edit changes no matrix of a block, so it writes along no direction to undo.")
    spans = {name: leading_directions(change.dense(), max(cfg.directions)) for name, change in named.items()}
    random = {name: torch.linalg.qr(torch.randn(U.shape, generator=generator))[0].to(U) for name, U in spans.items()}
    seconds = time.perf_counter() - start
    values: list[Any] = []
    controls: list[Any] = []
    for k in cfg.directions:
        for bases, results in ((spans, values), (random, controls)):
            with (edit + counter_edit(lm, edit, {n: U[:, :k] for n, U in bases.items()})).applied(lm):
                results.append(evaluate(lm))
    return AttackResult(tuple(cfg.directions), tuple(values), (), Cost(0, 0, seconds), tuple(controls))


def counter_edit(lm: LanguageModel, edit: WeightEdit, bases: dict[str, Float[Tensor, "out k"]]) -> WeightEdit:
    """What the attacker adds to the changed weights `W' = W + delta`: `-U U^T W'`, which writes nothing along U."""
    weights = lm.parameters()
    changes = {}
    for name, U in bases.items():
        changed = weights[name].detach() + edit.changes[name].dense().to(weights[name])
        changes[name] = LowRank(-U, U.T @ changed.to(U))
    return replace(edit, changes=changes, info={"attack": "undoing"})


def leading_directions(delta: Float[Tensor, "out in"], k: int) -> Float[Tensor, "out k"]:
    """The k leading left singular vectors; fewer where the rank of `delta` is lower (an edit of few features).

    From the Gram matrix of the shorter side: an eigenproblem of a third the size for a gated MLP's wide matrices.
    """
    delta64 = delta.double()
    wide = len(delta) <= delta.shape[1]
    squares, vectors = torch.linalg.eigh(delta64 @ delta64.T if wide else delta64.T @ delta64)
    # of the largest singular value, as in matrix_rank; an edit kept in half precision has noise of its own on top
    least = max(delta.shape) * torch.finfo(torch.float32).eps
    rank = int((squares > least**2 * squares[-1]).sum())
    found = vectors.flip(1)[:, : min(k, rank)]
    return (found if wide else torch.linalg.qr(delta64 @ found)[0]).to(delta)
