"""RMU: the state of texts to forget is pushed to a random direction, that of texts to keep is held.

    L = mean |h(x_forget) - c u|^2 + alpha mean |h(x_keep) - h_0(x_keep)|^2,   both over d_model, `u` of norm 1

at the output of one layer; trained are the down projections of that layer and the two below (WMDP, arXiv 2403.03218,
section 4). The authors' code draws `u` uniformly in [0, 1), so that all of its entries are positive and any two draws
point nearly the same way. Here it is Gaussian. `c` is in norms of the original's state, not a fixed number.

CUT, the version before, pushed towards a direction with a meaning; the authors then found that the direction hardly
matters. `rmu_ablation` asks the same: the state keeps its own direction and only its norm becomes `c` times as large.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ...data import Concept
from ...edits import WeightEdit
from ...models import LanguageModel
from ..method import Method
from .training import SCALES, Batch, batches, rate, trained_edit

if TYPE_CHECKING:
    from ..shared import Shared


@dataclass(frozen=True)
class RmuConfig:
    """How RMU trains, and how much of its change is kept."""

    scale: float = 1.0  # share of the change
    direction: str = "random"  # or "own": the state's own, only its norm grows (the ablation)
    depth: float = 0.24  # share of the depth at which states are read: layer 7 of SmolLM2's 30
    c: float = 3.0  # norms of the original's mean state
    alpha: float = 1.0  # weight of the texts to keep
    steps: int = 8
    lr: float = 0.027  # of the weights' root mean square: 5e-3 in SmolLM2
    batch_size: int = 8  # rows to forget, half as many to keep
    n_ctx: int = 32  # tokens per row


def rmu_loss(
    state: Float[Tensor, "n d_model"], wanted: Float[Tensor, "n d_model"], kept: Tensor, before: Tensor, alpha: float
) -> Float[Tensor, ""]:
    """The loss above, from the states of the tokens that count."""
    return (state - wanted).square().mean() + alpha * (kept - before).square().mean()


def rmu_edit(lm: LanguageModel, forget: list[str], keep: list[str], config: RmuConfig, seed: int = 0) -> WeightEdit:
    """The whole change of the training."""
    layer = round(config.depth * (lm.n_layers - 1))
    names = [lm.down_proj_name(x) for x in range(max(0, layer - 2), layer + 1)]
    u = torch.randn(lm.d_model, generator=torch.Generator().manual_seed(seed)).to(lm.device)
    planned = batches(lm, forget, keep, config.steps, config.batch_size, config.n_ctx, seed)
    before = [tuple(_states(lm, layer, part).detach() for part in batch) for batch in planned]

    def loss(step: int) -> Tensor:
        batch: Batch = planned[step]
        own, other = before[step]
        direction = own / own.norm(dim=1, keepdim=True) if config.direction == "own" else u / u.norm()
        wanted = config.c * own.norm(dim=1).mean() * direction.expand_as(own)
        kept = _states(lm, layer, batch.keep)
        # in units of the state, so that one rate serves models whose streams differ in scale
        return rmu_loss(_states(lm, layer, batch.forget), wanted, kept, other, config.alpha) / own.square().mean()

    info = {"method": "rmu", "layer": layer, "direction": config.direction}
    return trained_edit(lm, names, loss, config.steps, rate(lm, names, config.lr), info, seed)


def _states(lm: LanguageModel, layer: int, part: tuple[Tensor, Tensor]) -> Float[Tensor, "n d_model"]:
    """Residual stream behind `layer` at every token but the first of its row."""
    ids, mask = part
    counted = mask.clone()
    counted[:, 0] = False
    return lm.states(ids, [("resid_post", layer)], mask)["resid_post", layer][counted].float()


def fit_rmu(lm: LanguageModel, concept: Concept, config: RmuConfig, shared: Shared) -> WeightEdit:
    """The change of the training, made once, at a share."""
    key = ("rmu", config.direction, config.c, config.steps)
    return shared.made(key, lambda: rmu_edit(lm, shared.forget, shared.keep, config, shared.seed)) * config.scale


RMU = Method(
    "rmu", "localised", "RMU (WMDP, arXiv 2403.03218, section 4), with a Gaussian direction", RmuConfig(), fit_rmu,
    {"scale": SCALES}, ("forget", "keep"), "8 steps of an early part of the model, 20 s",
)  # fmt: skip
RMU_ABLATION = Method(
    "rmu_ablation", "localised", "CUT's ablation (arXiv 2403.03218): the state's own direction, only its norm grows",
    RmuConfig(direction="own"), fit_rmu, {"scale": SCALES}, ("forget", "keep"), "8 steps, 20 s",
)  # fmt: skip
