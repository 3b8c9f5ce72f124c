"""Recovery beside the clamp: bring the behaviour back while everything the edit looks at stays as the edit left it.

Cui et al. (arXiv 2606.18322): an intervention on features of a dictionary may block one road to a behaviour and leave
others open. The attacker has the weights and the edit; the edit stays on. What the MLP writes at each edited layer is
changed by a small trained map whose output is orthogonal to the *held* directions H of that layer,

    y <- y + P (B A y + b),   P = I - Q Q^T,  Q an orthonormal basis of H,

so that no reading along H changes by it. H: what the edited features read with (encoder) and, stricter than the paper,
what they write along (decoder), so that recovery cannot be the edit undone. For an edit without features H are the
leading directions that it writes along.

Differences: the paper optimises a perturbation of the residual state for each prompt; here one map is trained on other
facts and judged on held-out questions. Held readings are exact at one layer; a layer above may read something else
after a change below it (the paper holds that back by a Jacobian), which `drift` measures. Controls: the same training
without the clamp (what holding costs), and the same on the original (the lab's ceiling: what is taught, not recovered).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core import ConceptLabError, NotPossible
from ..data import Question, fact_texts, other_facts, row_batches, text_rows
from ..edits import Intervention, WeightEdit, applied
from ..erasure import Dictionaries, shipped_dictionaries
from ..models import Change, LanguageModel, next_token_loss
from .base import AttackResult, Cost, checkpoints
from .undoing import leading_directions

Held = Mapping[int, Tensor]  # layer -> [d_model, k] orthonormal directions along which nothing may change


@dataclass(frozen=True)
class ClampedConfig:
    """The attacker's budget."""

    steps: int = 20  # optimisation steps
    batch_size: int = 6  # facts per step
    n_ctx: int = 32  # tokens per fact
    rank: int = 8  # of the map A, B
    lr: float = 1e-2  # Adam
    n_directions: int = 8  # held per layer, for an edit that names no features
    at: tuple[int, ...] | None = None  # steps after which held-out questions are scored; None: 0 and the last
    control: bool = True  # whether the same is trained without the clamp
    seed: int = 0  # of A and of the order of the facts


@dataclass(frozen=True)
class ClampedResult(AttackResult):
    """As of every attack; `controls` are those of the attack without the clamp."""

    # change of the readings along the held directions at the end, as a share of their size: the clamp held if small
    drift: float = 0.0
    free_drift: float | None = None  # the same without the clamp


class Detour(nn.Module):
    """The trained map of one layer; what it adds is orthogonal to the held directions."""

    def __init__(self, held: Float[Tensor, "d_model k"], cfg: ClampedConfig, layer: int):
        super().__init__()
        d_model, generator = len(held), torch.Generator().manual_seed(cfg.seed + layer)
        self.held = held.float()
        self.A = nn.Parameter(torch.randn(cfg.rank, d_model, generator=generator).to(self.held) / d_model**0.5)
        self.B = nn.Parameter(torch.zeros(d_model, cfg.rank).to(self.held))
        self.b = nn.Parameter(torch.zeros(d_model).to(self.held))

    def forward(self, y: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        added = y.float() @ self.A.T @ self.B.T + self.b
        return y + (added - added @ self.held @ self.held.T).to(y)


def detour(lm: LanguageModel, maps: Mapping[int, Detour]) -> Change:
    """Inside the block every layer of `maps` writes what its map makes of it."""
    return lm.intervene({("mlp_output", layer): found for layer, found in maps.items()})


def clamped(
    lm: LanguageModel,
    intervention: Intervention | None,
    facts: Sequence[Question],
    questions: Sequence[Question],
    evaluate: Callable[[LanguageModel], object],
    held: Held,
    cfg: ClampedConfig = ClampedConfig(),
) -> ClampedResult:
    """Train the detour on `facts` (without answers of `questions`) with the intervention on; evaluate at `cfg.at`.

    `held`: `held_directions(lm, edit)`; for the original, those of the edit that it is compared with.
    """
    facts, at = other_facts(facts, questions), checkpoints(cfg.at, cfg.steps)
    if not facts:
        raise NotPossible("No fact is left to train the detour on; give facts other than those that are tested.")
    start, rows = time.perf_counter(), text_rows(lm, fact_texts(facts), cfg.n_ctx)
    free = {layer: Q[:, :0] for layer, Q in held.items()}
    with applied(intervention, lm):
        values, losses, drift = _trained(lm, rows, evaluate, held, held, cfg, at)
        controls, free_drift = (), None
        if cfg.control:
            controls, _, free_drift = _trained(lm, rows, evaluate, free, held, cfg, at)
    batches = row_batches(rows, cfg.batch_size, cfg.seed)
    tokens = sum(len(row) for _ in range(cfg.steps) for row in next(batches))
    cost = Cost(cfg.steps, tokens, time.perf_counter() - start)
    return ClampedResult(at, values, losses, cost, controls, drift=drift, free_drift=free_drift)


def _trained(
    lm: LanguageModel,
    rows: list[list[int]],
    evaluate: Callable[[LanguageModel], object],
    clamp: Held,
    read: Held,
    cfg: ClampedConfig,
    at: tuple[int, ...],
) -> tuple[tuple, tuple[float, ...], float]:
    """What the evaluation gives at each checkpoint, the losses, and the drift of the readings along `read`."""
    maps = {layer: Detour(Q.to(lm.device), cfg, layer) for layer, Q in clamp.items()}
    optimiser = torch.optim.Adam([p for found in maps.values() for p in found.parameters()], lr=cfg.lr)
    batches: Iterator[list[list[int]]] = row_batches(rows, cfg.batch_size, cfg.seed)
    values, losses = [], []
    for step in range(cfg.steps + 1):
        if step in at:
            with torch.no_grad(), detour(lm, maps):
                values.append(evaluate(lm))
        if step == cfg.steps:
            break
        with torch.enable_grad(), detour(lm, maps):
            loss = next_token_loss(lm, *lm.pad(next(batches)))
            optimiser.zero_grad()
            loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        if not torch.isfinite(loss):
            raise ConceptLabError(f"The detour diverged at step {step}; lower lr={cfg.lr:g}.")
    return tuple(values), tuple(losses), _drift(lm, maps, read, rows[: cfg.batch_size])


@torch.no_grad()
def _drift(lm: LanguageModel, maps: Mapping[int, Detour], read: Held, rows: list[list[int]]) -> float:
    """Mean change of the readings along the held directions over their mean size, both absolute."""
    ids, mask = lm.pad(rows)
    sites = [("mlp_output", layer) for layer in read]
    before = lm.capture(ids, sites, mask)
    with detour(lm, maps):
        after = lm.capture(ids, sites, mask)
    moved = size = 0.0
    for site in sites:
        Q, seen = read[site[1]].to(before[site]), mask.to(lm.device)
        moved += float((after[site][seen] @ Q - before[site][seen] @ Q).abs().sum())
        size += float((before[site][seen] @ Q).abs().sum())
    return moved / max(size, 1e-12)


# ---- what is held -----------------------------------------------------------------------------------------
@torch.no_grad()
def held_directions(
    lm: LanguageModel, edit: Intervention | None, saes: Dictionaries | None = None, n: int = ClampedConfig.n_directions
) -> Held:
    """Layer -> orthonormal basis of what the edited features read and write; else of what the edit writes along.

    `saes`: the dictionaries of the edit's features; default: the shipped ones. Raises NotPossible for an intervention
    that is no edit of down projections.
    """
    if not isinstance(edit, WeightEdit):
        raise NotPossible("What stays clamped is read from an edit of weights; this intervention is none.")
    features = _features(edit.info)
    if features:
        layers = sorted({layer for layer, _ in features})
        known = shipped_dictionaries(lm, layers) if saes is None else saes
        found = {}
        for layer in layers:
            index = torch.tensor([i for at, i in features if at == layer], device=known[layer].W_dec.device)
            found[layer] = torch.cat([known[layer].detectors(index), known[layer].directions(index).T], 1)
    else:
        names = {lm.down_proj_name(layer): layer for layer in range(lm.n_layers)}
        deltas = {names[name]: change.dense() for name, change in edit.changes.items() if name in names}
        found = {layer: leading_directions(delta, n) for layer, delta in sorted(deltas.items())}
    if not found:
        raise NotPossible("The edit changes no down projection, so there is nothing to hold on to.")
    return {layer: torch.linalg.qr(x.float())[0] for layer, x in found.items()}


def _features(info: Mapping) -> list[tuple[int, int]]:
    """(layer, index) of every feature that an edit, or a part of it, names."""
    own = [(int(layer), int(index)) for layer, index, _ in info.get("features", ())]
    return list(dict.fromkeys(own + [f for part in info.get("parts", ()) for f in _features(part)]))
