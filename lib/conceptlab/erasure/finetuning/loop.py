"""The one training loop of all fine-tuning methods: a loss in, an edit of the weights out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...core import ConceptLabError
from ...data import AnswerRow, row_batches
from ...edits import Adapter, Starts, Trainer, WeightEdit, lora, merged, trainable, trained_parameters
from ...models import LanguageModel, backward_memory
from .terms import KeepLoss, MarkedRows, Step, Term


@dataclass(frozen=True)
class TuningConfig:
    """How long is trained and which weights; raises ConceptLabError for sizes that cannot train."""

    steps: int = 12  # optimisation steps at most, each over one batch to forget and one to keep
    every: int = 2  # steps between two questions whether it is enough
    batch_size: int = 4  # rows of each
    n_ctx: int = 24  # tokens per row
    lr: float = 2e-4  # AdamW, constant
    weights: str = "mlp"  # what is trained: down_proj, mlp, attention, block, or all (embeddings too)
    layers: tuple[int, ...] | None = None  # of these layers; None: of every layer
    rank: int | None = None  # None: the weights themselves; else LoRA of this rank on their linear layers
    alpha: float = 16.0  # LoRA: its change is scaled by alpha / rank
    seed: int = 0  # order of the rows, start of LoRA

    def __post_init__(self) -> None:
        if min(self.steps, self.every, self.batch_size) < 1 or not self.lr > 0:
            raise ConceptLabError(
                "An eraser needs steps, every and batch_size of at least 1 and a positive lr; got "
                f"{self.steps}, {self.every}, {self.batch_size} and {self.lr:g}."
            )


@dataclass(frozen=True)
class Material:
    """MarkedRows to train on; `instead[i]` is another answer to the question of `forget[i]`."""

    forget: Sequence[AnswerRow]
    keep: Sequence[AnswerRow] = ()
    instead: Sequence[AnswerRow] = ()

    def __post_init__(self) -> None:
        if not self.forget or len(self.instead) not in (0, len(self.forget)):
            raise ConceptLabError(
                f"A training needs rows to forget, and as many other answers or none; got {len(self.forget)} and "
                f"{len(self.instead)}."
            )


@dataclass(frozen=True)
class Loss:
    """`forget + weight * keep`; without rows to keep, or with a weight of 0, the first term alone."""

    forget: Term
    keep: Term = field(default_factory=KeepLoss)
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise ConceptLabError(f"The weight of what is to be kept is at least 0; got {self.weight:g}.")


def planned(lm: LanguageModel, material: Material, cfg: TuningConfig) -> list[Step]:
    """The batches of every step, in order: rows are shuffled, and each is used once before any is used again."""
    places = row_batches(range(len(material.forget)), cfg.batch_size, cfg.seed)
    kept = row_batches(material.keep, cfg.batch_size, cfg.seed) if material.keep else None
    return [_step(lm, material, next(places), kept) for _ in range(cfg.steps)]


def _step(lm: LanguageModel, material: Material, places: list[int], kept: Iterator[list[AnswerRow]] | None) -> Step:
    instead = MarkedRows.of(lm, [material.instead[i] for i in places]) if material.instead else None
    keep = None if kept is None else MarkedRows.of(lm, next(kept))
    return Step(MarkedRows.of(lm, [material.forget[i] for i in places]), instead, keep)


def finetune(
    lm: LanguageModel,
    loss: Loss | Term,
    material: Material,
    cfg: TuningConfig = TuningConfig(),
    enough: Callable[[LanguageModel], bool] | None = None,
    starts: Starts | None = None,
) -> WeightEdit:
    """The edit that training on `loss` amounts to; the model itself stays bit-identical.

    A `Term` alone stands for a loss that keeps nothing. References are computed first, on the model as it is now and on
    the batches that will be trained on. `enough(lm)` is asked without gradients after every `cfg.every` steps and ends
    the training when it says so; `info["steps"]` is the number of steps made. `starts`: where LoRA starts. Raises
    ConceptLabError for a training that diverges.
    """
    loss = loss if isinstance(loss, Loss) else Loss(loss, weight=0.0)
    chosen = trained_parameters(lm, cfg.weights, cfg.layers)
    material = material if loss.weight else Material(material.forget, (), material.instead)
    run = Run(lm, loss, planned(lm, material, cfg), cfg.weights == "all" and cfg.rank is None)
    if cfg.rank is None:
        before = {name: p.detach().clone() for name, p in chosen.items()}
        with torch.enable_grad(), trainable(lm, chosen):
            info = run.train(list(chosen.values()), {}, cfg, enough)
            return WeightEdit.between(lm, before, info)
    with torch.enable_grad(), trainable(lm, {}), lora(lm, list(chosen), cfg.rank, cfg.alpha, cfg.seed, starts) as added:
        info = run.train([p for a in added.values() for p in (a.A, a.B)], added, cfg, enough)
        return merged(lm, added, info)


class Run:
    """One training: its batches, and what the terms need of the original, computed here."""

    def __init__(self, lm: LanguageModel, loss: Loss, steps: Sequence[Step], head_moves: bool):
        self.lm, self.loss, self.steps = lm, loss, steps
        self.terms = [(1.0, loss.forget), *([(loss.weight, loss.keep)] if steps[0].keep is not None else [])]
        with torch.no_grad():
            self.references: list[list[Any]] = [
                [term.reference(lm, step, head_moves) for _, term in self.terms] for step in steps
            ]

    def value(self, at: int, adapters: dict[str, Adapter]) -> Tensor:
        """The loss on the batches of step `at`."""
        parts = [
            weight * term(self.lm, self.steps[at], reference)
            for (weight, term), reference in zip(self.terms, self.references[at], strict=True)
        ]
        parts += [p for _, term in self.terms if (p := term.penalty(adapters)) is not None]
        return sum(parts[1:], parts[0])

    def train(
        self,
        parameters: list[nn.Parameter],
        adapters: dict[str, Adapter],
        cfg: TuningConfig,
        enough: Callable[[LanguageModel], bool] | None,
    ) -> dict:
        """Make the steps; what an edit tells about them."""
        room = backward_memory(self.lm, 2 * cfg.batch_size * cfg.n_ctx)  # to forget and to keep
        trainer = Trainer(parameters, cfg.lr, seed=cfg.seed, batch=room)
        for at in range(len(self.steps)):
            value = self.value(at, adapters)
            if not torch.isfinite(value):
                raise ConceptLabError(f"The eraser diverged at step {at}; lower lr={cfg.lr:g}.")
            trainer.step(value)
            self.references[at] = []
            if enough is not None and (at + 1) % cfg.every == 0 and _asked(enough, self.lm):
                break
        info = {"method": type(self.loss.forget).__name__, "steps": at + 1, "lr": cfg.lr}
        if (moved := trainer.moved()) is not None:
            info["moved"] = moved[1]  # share of the trained weights that differ in the model's half precision
        return info


@torch.no_grad()
def _asked(enough: Callable[[LanguageModel], bool], lm: LanguageModel) -> bool:
    return bool(enough(lm))
