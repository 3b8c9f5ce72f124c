"""Embedding-corrupted prompts: noise on the embeddings of a prompt that is about the concept (ECO, Liu et al. 2024,
arXiv 2406.07933).

    e_i <- e_i + sigma rms(E) z_i     for every token i of a flagged prompt, z_i ~ N(0, 1) fixed by the seed

sigma is learned without gradients: finite differences on log sigma bring the shown facts' right answers to what they
weigh *unasked* (the paper's target is a number that a model trained without them is expected to have). Differences: the
detector (`detector.py`), one sigma for all dimensions and tokens, and a fixed noise instead of a new one per prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...data import Concept
from ...evaluation import gold_logprobs, unasked
from ...models import Change, LanguageModel, Reading, guarded
from ..method import Method
from .detector import Detector, DetectorConfig, concept_detector
from .runtime import RunTime

if TYPE_CHECKING:
    from ..shared import Shared

NOISE_POSITIONS = 512  # of the noise; a longer prompt meets it again from the start


@dataclass(frozen=True, repr=False)
class CorruptedPrompts(RunTime):
    """Noise of a size on the embeddings of flagged prompts."""

    detector: Detector
    sigma: float  # in root mean squares of the embedding's numbers
    seed: int = 0  # of the noise

    def scaled(self, factor: float) -> CorruptedPrompts:
        return replace(self, sigma=factor * self.sigma)

    def guard(self, lm: LanguageModel) -> Change:
        flags, generator = self.detector.watch(lm), torch.Generator().manual_seed(self.seed)
        rms = lm.embed(torch.arange(min(4096, lm.d_vocab), device=lm.device)).float().pow(2).mean().sqrt()
        noise = self.sigma * rms * torch.randn(NOISE_POSITIONS, lm.d_model, generator=generator).to(lm.device)

        def start(embeds: Tensor, reading: Reading) -> Tensor:
            hit = reading.here & flags(reading)[:, None]
            at = (reading.here.long().cumsum(1) - 1).clamp_min(0) % NOISE_POSITIONS
            return embeds + (noise[at] * hit[..., None]).to(embeds)

        return guarded(lm, "corrupted prompts", start=start)


@dataclass(frozen=True)
class CorruptionConfig:
    """How the noise is learned, and how much of it is used."""

    factor: float = 1.0  # of the sigma that was learned
    start: float = 0.5  # sigma at the first step
    steps: int = 6  # of finite differences, two evaluations each
    width: float = 0.3  # of the difference, in log sigma
    stride: float = 0.8  # of the first step, in log sigma; it shrinks by a third each time
    n_facts: int = 12  # shown facts that it is learned on
    detector: DetectorConfig = DetectorConfig()


def learned_sigma(cost: Callable[[float], float], cfg: CorruptionConfig) -> float:
    """Zeroth-order descent on log sigma: the sign of a central difference, at shrinking strides."""
    place, stride = math.log(cfg.start), cfg.stride
    for _ in range(cfg.steps):
        slope = cost(math.exp(place + cfg.width)) - cost(math.exp(place - cfg.width))
        place -= stride * math.copysign(1.0, slope) if slope else 0.0
        stride *= 2 / 3
    return math.exp(place)


def fit_corruption(lm: LanguageModel, concept: Concept, config: CorruptionConfig, shared: Shared) -> CorruptedPrompts:
    """The noise that brings the shown facts to their weight unasked."""
    learning = replace(config, factor=1.0)
    start = CorruptedPrompts(concept_detector(shared, config.detector), config.start, shared.seed)

    def learn() -> float:
        facts = shared.forget_facts[: config.n_facts]
        wanted = float(unasked(lm, facts).gold.mean())

        def cost(sigma: float) -> float:
            with replace(start, sigma=sigma).applied(lm):
                return (float(gold_logprobs(lm, facts).mean()) - wanted) ** 2

        return learned_sigma(cost, config)

    return replace(start, sigma=shared.made(("corruption", learning), learn)).scaled(config.factor)


ECO = Method(
        "eco", "run-time", "ECO: embedding-corrupted prompts (arXiv 2406.07933)", CorruptionConfig(), fit_corruption,
        {"factor": (0.25, 0.35, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8)}, ("shown",), "1 min",
    )  # fmt: skip
