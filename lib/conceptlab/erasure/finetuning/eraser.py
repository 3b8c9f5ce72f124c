"""Small erasers by fine-tuning, as objects of attack: gradient ascent and negative preference optimisation (NPO).

Both lower the probability of texts and facts about a concept while the loss on other texts is held down. They are
fitted to a few hundred steps at most; the point is what attacks do to them, not their best score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import ConceptLabError
from ...data import row_batches, text_rows
from ...edits import Trainer, WeightEdit, trainable, trained_parameters
from ...models import LanguageModel, next_token_loss, sequence_logprobs

METHODS = ("gradient_ascent", "npo")


@dataclass(frozen=True)
class EraserConfig:
    """How the eraser trains; raises ConceptLabError for sizes that cannot train."""

    method: str = "npo"  # or gradient_ascent
    steps: int = 20  # optimisation steps at most, each over one batch to forget and one to keep
    every: int = 2  # steps between two questions whether it is enough
    batch_size: int = 8  # rows of each
    n_ctx: int = 32  # tokens per row
    lr: float = 5e-5  # AdamW, constant
    beta: float = 0.1  # NPO: inverse temperature (arXiv 2404.05868)
    keep: float = 1.0  # weight of the loss on the texts to keep
    weights: str = "mlp"  # what is trained, as in RelearnConfig
    layers: tuple[int, ...] | None = None
    seed: int = 0  # order of the rows

    def __post_init__(self) -> None:
        if min(self.steps, self.every, self.batch_size) < 1 or not self.lr > 0:
            raise ConceptLabError(
                "An eraser needs steps, every and batch_size of at least 1 and a positive lr; got "
                f"{self.steps}, {self.every}, {self.batch_size} and {self.lr:g}."
            )


def finetuned_eraser(
    lm: LanguageModel,
    forget: Sequence[str],
    keep: Sequence[str],
    cfg: EraserConfig = EraserConfig(),
    enough: Callable[[LanguageModel], bool] | None = None,
) -> WeightEdit:
    """The edit that the eraser's training amounts to; the model itself stays bit-identical.

    `keep` may be empty. `enough(lm)` is asked without gradients after every `cfg.every` steps and ends the training
    when it says so; `info["steps"]` is the number of steps made. Raises ConceptLabError for an unknown method and a
    training that diverges.
    """
    if cfg.method not in METHODS:
        raise ConceptLabError(f"Unknown method {cfg.method!r}; choose one of {', '.join(METHODS)}.")
    chosen = trained_parameters(lm, cfg.weights, cfg.layers)
    forget_rows = text_rows(lm, forget, cfg.n_ctx)
    keep_rows = text_rows(lm, keep, cfg.n_ctx) if keep else []
    before = {name: p.detach().clone() for name, p in chosen.items()}
    endless = row_batches(forget_rows, cfg.batch_size, cfg.seed)
    planned = [lm.pad(next(endless)) for _ in range(cfg.steps)]
    reference = _before_training(lm, planned) if cfg.method == "npo" else None
    keep_batches = row_batches(keep_rows, cfg.batch_size, cfg.seed) if keep_rows else None
    with torch.enable_grad(), trainable(lm, chosen):
        trainer = Trainer(list(chosen.values()), cfg.lr, seed=cfg.seed)
        for step in range(cfg.steps):
            ids, mask = planned[step]
            if reference is None:
                loss = -next_token_loss(lm, ids, mask)
            else:
                loss = npo_loss(sequence_logprobs(lm, ids, mask), reference[step], cfg.beta)
            if keep_batches is not None:
                loss = loss + cfg.keep * next_token_loss(lm, *lm.pad(next(keep_batches)))
            if not torch.isfinite(loss):
                raise ConceptLabError(f"The eraser diverged at step {step}; lower lr={cfg.lr:g}.")
            trainer.step(loss)
            if enough is not None and (step + 1) % cfg.every == 0 and _asked(enough, lm):
                break
        info = {"method": cfg.method, "steps": step + 1, "lr": cfg.lr}
        if (moved := trainer.moved()) is not None:
            info["moved"] = moved[1]  # share of the trained weights that differ in the model's half precision
        return WeightEdit.between(lm, before, info)


@torch.no_grad()
def _asked(enough: Callable[[LanguageModel], bool], lm: LanguageModel) -> bool:
    return bool(enough(lm))


def npo_loss(logprobs: Float[Tensor, " batch"], reference: Float[Tensor, " batch"], beta: float) -> Float[Tensor, ""]:
    """`-(2 / beta) mean log sigmoid(-beta (log p - log p_ref))` (arXiv 2404.05868)."""
    return -(2 / beta) * torch.nn.functional.logsigmoid(-beta * (logprobs - reference)).mean()


@torch.no_grad()
def _before_training(lm: LanguageModel, batches: Sequence[tuple[Tensor, Tensor]]) -> list[Float[Tensor, " batch"]]:
    """The reference scores of the rows that will be trained on, and of no others."""
    return [sequence_logprobs(lm, ids, mask) for ids, mask in batches]
