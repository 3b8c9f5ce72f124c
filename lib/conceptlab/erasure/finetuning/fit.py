"""Fine-tuning as a method: one training for all scales of its change, and as many settings to try as any other method.

The learning rate is a multiple of the one that the model's weights bear, the change of the training is scaled
afterwards. So twelve settings cost three trainings, and a training that overshoots is scaled back, not thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from ...data import Concept
from ...edits import Starts, WeightEdit
from ...models import LanguageModel
from .loop import Loss, Material, TuningConfig, finetune
from .materials import whole
from .terms import KeepLoss, MarkedRows, Term, cross_entropy

if TYPE_CHECKING:
    from ..shared import Shared

# How much smaller learning rates must be: at SmolLM2's, the unedited Gemma loses everything in two steps
BORNE = {"gemma3-270m": 0.1}
RATES = (0.5, 1.0, 2.0)
SCALES = (0.25, 0.5, 0.75, 1.0)
PLAIN = TuningConfig()
GRID: Mapping[str, tuple[float, ...]] = {"rate": RATES, "scale": SCALES}


@dataclass(frozen=True)
class FinetunedConfig:
    """How a method trains, and how much of its change is kept."""

    rate: float = 1.0  # learning rate, in multiples of `tuning.lr` (a tenth of it for Gemma)
    scale: float = 1.0  # share of the change
    weight: float = 1.0  # of the term on what is to be kept; 0: nothing is
    stop: float = 0.0  # the training ends when the first batch has lost so many nats per token; 0: it does not
    forget: Term = field(default_factory=KeepLoss)
    keep: Term = field(default_factory=KeepLoss)
    tuning: TuningConfig = TuningConfig()

    def trained(self, lm: LanguageModel, seed: int) -> TuningConfig:
        """The training for one model and seed."""
        return replace(self.tuning, lr=self.rate * BORNE.get(lm.name, 1.0) * self.tuning.lr, seed=seed)


Materials = Callable[[LanguageModel, "Shared", int], Material]
Start = Callable[[LanguageModel, Material, TuningConfig], Starts]


def fitted_on(materials: Materials, sign: float = 1.0, start: Start | None = None) -> Callable[..., WeightEdit]:
    """`fit` of a method that trains on `materials`; its change is scaled by `sign` times the config's scale."""

    def fit(lm: LanguageModel, concept: Concept, config: FinetunedConfig, shared: Shared) -> WeightEdit:
        """The change of the training, scaled; it is trained once for all scales."""
        once, method = replace(config, scale=1.0), (materials, start, replace(config, scale=1.0, rate=1.0))
        edit = shared.lately(method, once, lambda: trained(lm, once, shared, materials, start))
        return edit * (sign * config.scale)

    return fit


def trained(
    lm: LanguageModel, config: FinetunedConfig, shared: Shared, materials: Materials, start: Start | None = None
) -> WeightEdit:
    """The whole change of the training that `config` describes."""
    cfg = config.trained(lm, shared.seed)
    material = shared.made(("material", materials, cfg.n_ctx), lambda: materials(lm, shared, cfg.n_ctx))
    key = start, materials, cfg.n_ctx, cfg.weights, cfg.layers, cfg.rank, cfg.alpha
    starts = None if start is None else shared.made(key, lambda: start(lm, material, cfg))
    loss = Loss(config.forget, config.keep, config.weight)
    return finetune(lm, loss, material, cfg, overshooting(lm, material, config), starts)


def finetune_texts(
    lm: LanguageModel,
    loss: Loss | Term,
    forget: Sequence[str],
    keep: Sequence[str],
    cfg: TuningConfig = PLAIN,
    enough: Callable[[LanguageModel], bool] | None = None,
) -> WeightEdit:
    """`finetune` on whole texts, cut into rows; `keep` may be empty."""
    material = Material(whole(lm, forget, cfg.n_ctx), whole(lm, keep, cfg.n_ctx) if keep else ())
    return finetune(lm, loss, material, cfg, enough)


def overshooting(
    lm: LanguageModel, material: Material, config: FinetunedConfig
) -> Callable[[LanguageModel], bool] | None:
    """Says when the first rows to forget have lost `config.stop` nats per token; None where nothing stops."""
    if not config.stop:
        return None
    probe = MarkedRows.of(lm, material.forget[: config.tuning.batch_size])
    with torch.no_grad():
        before = float(cross_entropy(lm, probe))
    return lambda model: float(cross_entropy(model, probe)) - before > config.stop
