"""What every check of a device gets: the device, sizes, models, texts and questions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core import ConceptLabError, cache_dir
from ...data import FEW_SHOT, Concept, Question, fact_texts, list_concepts, load_concept
from ...models import LanguageModel, choose_dtype, random_model

Figures = dict[str, Any]  # JSON-able: numbers, texts, lists of them


@dataclass(frozen=True)
class Sizes:
    """How much each check does; the defaults suit a CPU, a few seconds in all."""

    d_model: int = 64
    n_layers: int = 2
    n_questions: int = 6
    few_shot: str = ""  # before the questions; empty: nothing, which a CPU has through in a third of the time
    harvest_tokens: int = 1_024
    steps: int = 4  # of every training
    d_in: int = 32  # of the dictionaries whose steps are timed
    d_sae: int = 256
    k: int = 8
    sae_tokens: int = 512
    sae_batch: int = 128
    sae_steps: int = 12
    matrix: int = 128  # sides of the products that are timed
    most_rows: int = 32  # of the largest batch that is tried


# A few hundred MB of models, tokens enough that a device is busy; under two minutes in all on a slow GPU.
ON_GPU = Sizes(
    d_model=512, n_layers=8, n_questions=40, few_shot=FEW_SHOT, harvest_tokens=65_536, steps=20, d_in=2_304,
    d_sae=16_384, k=64, sae_tokens=32_768, sae_batch=4_096, sae_steps=60, matrix=4_096, most_rows=1_024,
)  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """One device under examination."""

    device: torch.device
    sizes: Sizes = Sizes()
    folder: Path = field(default_factory=lambda: cache_dir() / "gpu_check")  # for harvests, removed by the runner

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def half(self) -> torch.dtype:
        """The half precision that training is checked in, whether or not the chip is fast in it."""
        return torch.bfloat16

    @cached_property
    def concept(self) -> Concept:
        return load_concept("golf")

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        return self.concept.dev[: self.sizes.n_questions]

    @cached_property
    def facts(self) -> tuple[Question, ...]:
        """Questions for an attacker, of another concept."""
        return load_concept("chemical_elements").dev[: self.sizes.n_questions]

    @cached_property
    def texts(self) -> list[str]:
        """Answered questions of every concept: what is harvested and trained on, and the vocabulary."""
        return [text for name in list_concepts() for text in fact_texts(load_concept(name).dev)]

    def model(self, kind: str = "Llama", dtype: torch.dtype | None = None, on: str | None = None) -> LanguageModel:
        """A random model of the bench's size, the same weights on every device; `dtype` None: float32."""
        options = [f" {option}" for q in (*self.questions, *self.facts) for option in q.options]
        return random_model(
            kind, [*self.texts, *options, FEW_SHOT, "\n\n", " Yes", " No"], d_model=self.sizes.d_model,
            n_layers=self.sizes.n_layers, device=on or self.device, dtype=dtype or torch.float32,
        )  # fmt: skip

    def chosen_dtype(self, kind: str = "llama") -> torch.dtype:
        """What a model is loaded in on this device unless a dtype is asked for."""
        return choose_dtype(self.device, kind)

    def normal(self, *shape: int, seed: int = 0) -> Tensor:
        """Random numbers on the device, the same on every device."""
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(self.device)

    def wait(self) -> None:
        """Until the device has done all that it was told to."""
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object], repeats: int = 1) -> float:
        """Seconds that `work` takes, a first call (compiling, allocating) left out, the mean of `repeats`."""
        work()
        self.wait()
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        self.wait()
        return (time.perf_counter() - start) / repeats

    def peak(self, work: Callable[[], object]) -> tuple[int | None, int | None]:
        """Bytes that lay on the device before `work`, and at most during it; None where nobody counts (a CPU)."""
        if not self.is_gpu:
            work()
            return None, None
        self.wait()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        work()
        self.wait()
        return before, torch.cuda.max_memory_allocated(self.device)


def require(holds: bool, sentence: str) -> None:
    """Raise ConceptLabError with what does not hold: the check has failed."""
    if not holds:
        raise ConceptLabError(sentence)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def furthest(a: Tensor, b: Tensor) -> float:
    """Largest difference of two tensors, wherever they lie, over the largest number of the second."""
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-30))


def bits(lm: LanguageModel) -> dict[str, Tensor]:
    """Copies of all weights."""
    return {name: p.detach().clone() for name, p in lm.parameters().items()}


def require_untouched(lm: LanguageModel, before: dict[str, Tensor], after: str) -> None:
    """Raise unless every weight has the bits that it had (-0.0 is not 0.0)."""
    for name, p in lm.parameters().items():
        same = torch.equal(p.detach().contiguous().view(torch.uint8), before[name].contiguous().view(torch.uint8))
        require(same, f"{name} has other bits after {after} than before.")
