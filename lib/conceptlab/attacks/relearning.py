"""Relearning: fine-tune a changed model on text about the concept and see what comes back.

Retraining on T (Deeb & Roger, arXiv 2410.08827): the attacker trains on some of what was to be removed and is tested
on *other* facts, which the text does not hold. What returns must still have been in the weights.
`unrelated_texts` shows what any training at all repairs (Lucki et al., arXiv 2409.18025).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral

import torch

from ..core import ConceptLabError
from ..data import row_batches, text_rows
from ..edits import Intervention, Trainer, applied, lora, trainable, trained_parameters
from ..models import LanguageModel, backward_memory, next_token_loss
from .base import AttackResult, Cost


@dataclass(frozen=True)
class RelearnConfig:
    """The attacker's budget."""

    steps: int = 12  # optimisation steps
    batch_size: int = 8  # rows per step
    n_ctx: int = 32  # tokens per row
    lr: float = 1e-4  # AdamW, constant
    weight_decay: float = 0.0
    weights: str = "mlp"  # what is trained: down_proj, mlp, attention, block, or all (embeddings too)
    layers: tuple[int, ...] | None = None  # of these layers; None: of every layer
    rank: int | None = None  # None: the weights themselves; else LoRA of this rank on their linear layers
    alpha: float = 16.0  # LoRA: its change is scaled by alpha / rank (16 in the released code of PISCES)
    seed: int = 0  # order of the rows, start of LoRA


def relearn(
    lm: LanguageModel,
    intervention: Intervention | None,
    texts: Sequence[str],
    cfg: RelearnConfig = RelearnConfig(),
    *,
    evaluate: Callable[[LanguageModel], object] | None = None,
    at: Sequence[int] | None = None,
    **changes,
) -> AttackResult:
    """Fine-tune the model with `intervention` applied on `texts`; evaluate after the numbers of steps in `at`.

    `changes` override fields of `cfg` (`steps=4, lr=1e-3`). `at` holds numbers from 0 to `steps` (default: only
    `steps`); `evaluate(lm)` is called there without gradients and its results are kept. Afterwards, also after an
    exception, every weight is bit-identical to what it was and no weight asks for gradients that did not before.
    A model in half precision is trained on float32 master weights (`Trainer`); `moved` then says what they and the
    weights did.
    Raises ConceptLabError for a budget that makes no sense, texts with nothing to predict, or a loss that diverges.
    """
    cfg = replace(cfg, **changes)
    at = tuple(sorted(set((cfg.steps,) if at is None else at)))
    _check(cfg, at)
    chosen = trained_parameters(lm, cfg.weights, cfg.layers)
    rows = text_rows(lm, texts, cfg.n_ctx)
    with applied(intervention, lm), torch.enable_grad():
        if cfg.rank is None:
            with trainable(lm, chosen):
                return _train(lm, list(chosen.values()), rows, cfg, evaluate, at)
        with trainable(lm, {}), lora(lm, list(chosen), cfg.rank, cfg.alpha, cfg.seed) as adapters:
            return _train(lm, [p for a in adapters.values() for p in (a.A, a.B)], rows, cfg, evaluate, at)


def _train(lm, parameters: list, rows: list[list[int]], cfg: RelearnConfig, evaluate, at: tuple) -> AttackResult:
    room = backward_memory(lm, cfg.batch_size * cfg.n_ctx)
    trainer = Trainer(parameters, cfg.lr, cfg.weight_decay, cfg.seed, room)
    losses: list[float] = []
    values: list = []
    tokens, seconds = 0, 0.0
    batches = row_batches(rows, cfg.batch_size, cfg.seed)
    for step in range(cfg.steps + 1):
        if step in at and evaluate is not None:
            with torch.no_grad():
                values.append(evaluate(lm))
        if step == cfg.steps:
            break
        start = time.perf_counter()
        ids, mask = lm.pad(next(batches))
        loss = next_token_loss(lm, ids, mask)
        trainer.step(loss)
        losses.append(loss.item())
        tokens += int(mask.sum())
        seconds += time.perf_counter() - start
        if not torch.isfinite(loss):
            raise ConceptLabError(f"The loss is {losses[-1]} at step {step}: the attack diverged; lower lr={cfg.lr:g}.")
    cost = Cost(cfg.steps, tokens, seconds)
    return AttackResult(at if evaluate else (), tuple(values), tuple(losses), cost, moved=trainer.moved())


def _check(cfg: RelearnConfig, at: tuple[int, ...]) -> None:
    if isinstance(cfg.lr, bool) or not isinstance(cfg.lr, int | float) or not cfg.lr > 0:
        raise ConceptLabError(f"The learning rate must be a positive number; got lr={cfg.lr!r}.")
    if not all(isinstance(n, Integral) for n in (cfg.steps, cfg.batch_size, cfg.n_ctx)):
        raise ConceptLabError(
            f"steps, batch_size and n_ctx are whole numbers; got {cfg.steps!r}, {cfg.batch_size!r}, {cfg.n_ctx!r}."
        )
    if cfg.steps < 1 or cfg.batch_size < 1 or cfg.n_ctx < 3:
        raise ConceptLabError(
            f"An attack needs steps >= 1, batch_size >= 1 and n_ctx >= 3; got {cfg.steps}, {cfg.batch_size}, "
            f"{cfg.n_ctx}."
        )
    if any(not 0 <= step <= cfg.steps for step in at):
        raise ConceptLabError(f"Checkpoints lie between 0 and {cfg.steps} steps; got {list(at)}.")
