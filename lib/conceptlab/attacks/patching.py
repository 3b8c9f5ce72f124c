"""Activation patching: give the changed model activations of the original one, and see how much comes back, and where.

It needs the original model, so it is a diagnosis rather than an attack: it says where the change acts, and that
everything behind that place still works.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core import ConceptLabError
from ..edits import Intervention, applied
from ..models import LanguageModel, Site
from .base import AttackResult, Cost


@dataclass(frozen=True)
class PatchConfig:
    """What is carried over."""

    site: str = "mlp_contribution"  # a site of conceptlab.models; resid_post carries over everything below as well
    layers: tuple[int, ...] | None = None  # first layer of each window; None: every layer
    width: int = 1  # neighbouring layers that are patched together
    chunk: int = 8  # windows whose activations are held in memory together (0.1 MB per site and question)


@torch.no_grad()
def patch(
    lm: LanguageModel,
    intervention: Intervention | None,
    evaluate: Callable[[LanguageModel], object],
    cfg: PatchConfig = PatchConfig(),
) -> AttackResult:
    """Per layer: `evaluate(lm)` of the changed model with the original's activations there, at every position.

    `evaluate` must run the same forward passes each time, as `score_questions` does. Steps are the first layers of the
    windows. Raises when the passes differ, and for no layers or a width below 1.
    """
    if cfg.width < 1 or cfg.chunk < 1 or cfg.layers == ():
        raise ConceptLabError(
            f"Patching needs a layer, a width and a chunk of at least 1; got {cfg.layers}, {cfg.width}, {cfg.chunk}."
        )
    layers = range(lm.n_layers - cfg.width + 1) if cfg.layers is None else cfg.layers
    windows = [
        [(cfg.site, lm.check_layer(layer + i)) for i in range(cfg.width)] for layer in map(lm.check_layer, layers)
    ]
    start, values, tokens = time.perf_counter(), [], 0
    for i in range(0, len(windows), cfg.chunk):
        chosen = windows[i : i + cfg.chunk]
        recorded = _record(lm, evaluate, {site for window in chosen for site in window})
        tokens += sum(x[..., 0].numel() for x in next(iter(recorded.values())))
        with applied(intervention, lm):
            values += [_replay(lm, evaluate, {site: recorded[site] for site in window}) for window in chosen]
    cost = Cost(0, tokens, time.perf_counter() - start)
    return AttackResult(tuple(window[0][1] for window in windows), tuple(values), (), cost)


def _record(lm: LanguageModel, evaluate: Callable, sites: set[Site]) -> dict[Site, list[Tensor]]:
    found: dict[Site, list[Tensor]] = {site: [] for site in sites}

    def keep(site: Site) -> Callable[[Tensor], None]:
        return lambda x: found[site].append(x.detach().clone())

    with lm.intervene({site: keep(site) for site in sites}):
        evaluate(lm)
    return found


def _replay(lm: LanguageModel, evaluate: Callable, recorded: dict[Site, list[Tensor]]) -> object:
    queues = {site: iter(parts) for site, parts in recorded.items()}

    def give(site: Site) -> Callable[[Tensor], Tensor]:
        def hook(x: Tensor) -> Tensor:
            kept = next(queues[site], None)
            if kept is None or kept.shape != x.shape:
                raise ConceptLabError(
                    "Patching needs an evaluation that runs the same forward passes every time, such as "
                    "score_questions with fixed questions."
                )
            return kept

        return hook

    with lm.intervene({site: give(site) for site in recorded}):
        return evaluate(lm)
