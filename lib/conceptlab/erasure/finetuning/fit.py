"""Erasers by fine-tuning as methods: trained once for a fixed number of steps, their change scaled to the strength."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...data import Concept
from ...edits import WeightEdit
from ...models import LanguageModel
from .eraser import EraserConfig, finetuned_eraser

if TYPE_CHECKING:
    from ..shared import Shared

# Of the change that the training makes; a training that overshoots is scaled back, and tuned like any other method
SCALES = tuple(i / 12 for i in range(1, 13))
# Learning rates that the weights bear: at SmolLM2's, the unedited Gemma loses everything in two steps
RATES = {"gemma3-270m": 2e-5}


@dataclass(frozen=True)
class FinetunedConfig:
    """How an eraser trains, and how much of its change is kept."""

    scale: float = 1.0  # share of the change
    eraser: EraserConfig = EraserConfig(steps=12, batch_size=4, n_ctx=24, lr=2e-4)


def fit_finetuned(lm: LanguageModel, concept: Concept, config: FinetunedConfig, shared: Shared) -> WeightEdit:
    """The change of the training, scaled; it is trained once for all scales."""
    eraser = replace(config.eraser, lr=RATES.get(lm.name, config.eraser.lr), seed=shared.seed)
    edit = shared.made(("eraser", eraser), lambda: finetuned_eraser(lm, shared.forget, shared.keep, eraser))
    return edit * config.scale
