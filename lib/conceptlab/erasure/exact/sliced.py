"""Sliced adapters, from which a slice of the training data can be taken back exactly (S3T, Chowdhury et al. 2024,
arXiv 2406.16257).

The model's layers are divided into groups from the top down, the data into as many slices. Stage i trains LoRA in group
i on slices 1 to i, with the adapters of the groups before it on and frozen:

    group:      1 (top)      2            3
    has seen:   s1           s1 s2        s1 s2 s3

To delete slice j, the adapters of groups j and on are thrown away. What is left was trained before slice j was shown:
its numbers are bit-identical to those of a model that was never shown it. That is the only proof in the course, and it
needs no measurement, but a price: the slices behind j are gone as well until someone retrains. Several copies, trained
in other orders, put that off: the one that has kept most serves on.

Differences: the paper trains the adapters of a classifier, ours those of a language model, in the MLP's weights.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import torch

from ...core import ConceptLabError
from ...data import row_batches, text_rows
from ...edits import LowRank, Trainer, WeightEdit, applied, lora, trainable, trained_parameters
from ...models import LanguageModel, next_token_loss


@dataclass(frozen=True)
class SliceConfig:
    """How each stage trains."""

    weights: str = "mlp"  # what gets adapters in a group's layers, as in `trained_parameters`
    rank: int = 8
    alpha: float = 16.0  # LoRA: its change is scaled by alpha / rank
    steps: int = 12  # per stage
    batch_size: int = 8  # rows per step
    n_ctx: int = 48  # tokens per row
    lr: float = 2e-3  # AdamW
    seed: int = 0  # of the adapters' start and the order of the rows; a stage adds its number


@dataclass(frozen=True)
class Sliced:
    """One copy: adapters by group, in the order in which the slices were shown. An intervention."""

    order: tuple[int, ...]  # slices that the adapters have seen, the first one in all of them
    parts: tuple[WeightEdit, ...]  # part i has seen order[:i + 1]

    @property
    def edit(self) -> WeightEdit | None:
        """All adapters as one edit; None when none is left."""
        return reduce(add, self.parts) if self.parts else None

    def applied(self, lm: LanguageModel) -> AbstractContextManager:
        return applied(self.edit, lm)

    def without(self, slices: Collection[int]) -> Sliced:
        """The copy after deletion: adapters up to the first deleted slice."""
        kept = next((i for i, s in enumerate(self.order) if s in slices), len(self.order))
        return replace(self, order=self.order[:kept], parts=self.parts[:kept])


def layer_groups(n_layers: int, n: int) -> list[list[int]]:
    """`n` groups of neighbouring layers from the top down, of nearly equal size."""
    if not 1 <= n <= n_layers:
        raise ConceptLabError(f"{n_layers} layers make 1 to {n_layers} groups; got {n}.")
    ends = [round(i * n_layers / n) for i in range(n + 1)]
    return [list(range(n_layers - b, n_layers - a)) for a, b in zip(ends[:-1], ends[1:], strict=True)]


def train_sliced(
    lm: LanguageModel,
    slices: Sequence[Sequence[str]],
    cfg: SliceConfig = SliceConfig(),
    order: Sequence[int] | None = None,
    n_groups: int | None = None,
) -> Sliced:
    """Train one copy on the slices in `order` (default: as they stand), one group of layers after another.

    `n_groups`: groups that the layers are divided into; default: one per slice. A copy of fewer slices divided into the
    same number of groups is what the whole copy is after a deletion, to the bit. The model is left as it was.
    """
    order = tuple(range(len(slices)) if order is None else order)
    groups = layer_groups(lm.n_layers, n_groups or len(slices))
    if not order or len(order) > len(groups) or len(set(order)) != len(order):
        raise ConceptLabError(f"An order names each of at most {len(groups)} slices once; got {list(order)}.")
    parts: list[WeightEdit] = []
    for stage in range(len(order)):
        texts = [text for s in order[: stage + 1] for text in slices[s]]
        parts.append(_stage(lm, groups[stage], texts, Sliced(order[:stage], tuple(parts)), cfg, stage))
    return Sliced(order, tuple(parts))


def _stage(
    lm: LanguageModel, layers: list[int], texts: list[str], below: Sliced, cfg: SliceConfig, stage: int
) -> WeightEdit:
    """The adapters of one group, trained with those of the groups before it on."""
    names = list(trained_parameters(lm, cfg.weights, layers))
    batches = row_batches(text_rows(lm, texts, cfg.n_ctx), cfg.batch_size, cfg.seed + stage)
    with below.applied(lm), torch.enable_grad(), trainable(lm, {}):
        with lora(lm, names, cfg.rank, cfg.alpha, cfg.seed + stage) as adapters:
            trainer = Trainer([p for a in adapters.values() for p in (a.A, a.B)], cfg.lr, seed=cfg.seed + stage)
            for step in range(cfg.steps):
                loss = next_token_loss(lm, *lm.pad(next(batches)))
                if not torch.isfinite(loss):
                    raise ConceptLabError(f"Stage {stage} diverged at step {step}; lower lr={cfg.lr:g}.")
                trainer.step(loss)
        changes = {n: LowRank((a.scale * a.B).detach().clone(), a.A.detach().clone()) for n, a in adapters.items()}
        return WeightEdit.of(lm, changes, {"method": "sliced adapters", "stage": stage})
