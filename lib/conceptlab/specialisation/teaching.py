"""Teach facts through some value vectors only, until a given loss: the causal part of arXiv 2505.17260, section 5.

The paper fine-tunes all value vectors (FT-FV), the concept's most active ones (FT-PV), the complement (FT-CV) and as
many random ones (FT-RV). Here every arm stops at the same loss on the taught answers, so that arms are compared at what
they have learnt; the last step is cut to meet that loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core import ConceptLabError
from ..edits import Trainer, WeightEdit, trainable
from ..models import LanguageModel


@dataclass(frozen=True)
class TeachingConfig:
    """How facts are taught."""

    target: float = 0.5  # nats per answer token: where every arm stops
    steps: int = 40  # full-batch steps at most
    lr: float = 3e-3  # AdamW, for arms of a few vectors
    lr_wide: float = 3e-4  # AdamW, for arms that train most vectors
    wide: float = 0.5  # share of the vectors above which an arm counts as such


@dataclass(frozen=True)
class Taught:
    """What teaching came to."""

    edit: WeightEdit  # of the down projections
    loss: float  # on the taught answers (nats per token) with the edit applied
    steps: int
    reached: bool  # whether the loss came down to the target


def answer_loss(lm: LanguageModel, pairs: Sequence[tuple[str, str]]) -> Float[Tensor, ""]:
    """Mean cross-entropy (nats per token) of each answer after its text, the texts themselves not counted."""
    heads = [[*lm.start_ids, *lm.encode(text)] for text, _ in pairs]
    tails = [lm.encode(f" {answer}") for _, answer in pairs]
    ids, mask = lm.pad([head + tail for head, tail in zip(heads, tails, strict=True)])
    counted = torch.zeros_like(mask)
    for row, (head, tail) in enumerate(zip(heads, tails, strict=True)):
        counted[row, len(head) : len(head) + len(tail)] = True
    logits = lm.head(lm.final_hidden(ids, mask)[:, :-1][counted[:, 1:]])
    return torch.nn.functional.cross_entropy(logits.float(), ids[counted])


def teach_through(
    lm: LanguageModel,
    pairs: Sequence[tuple[str, str]],
    mask: Bool[Tensor, "layers d_mlp"],
    cfg: TeachingConfig = TeachingConfig(),
) -> Taught:
    """Train the value vectors of `mask`, and nothing else, until the answers' loss is `cfg.target`.

    The model itself stays as it is. Raises ConceptLabError for an empty mask and a loss that diverges.
    """
    layers = mask.any(1).nonzero()[:, 0].tolist()
    if not layers:
        raise ConceptLabError("No value vector was chosen to be taught through; the mask is empty.")
    named = lm.parameters()
    chosen = {lm.down_proj_name(layer): named[lm.down_proj_name(layer)] for layer in layers}
    before = {name: p.detach().clone() for name, p in chosen.items()}
    lr = cfg.lr_wide if float(mask.float().mean()) > cfg.wide else cfg.lr
    with torch.enable_grad(), trainable(lm, chosen):
        held = [p.register_hook(partial(_only, mask[i].to(p))) for i, p in zip(layers, chosen.values(), strict=True)]
        try:
            loss, steps = _train(lm, pairs, list(chosen.values()), lr, cfg)
        finally:
            for hook in held:
                hook.remove()
        info = {"method": "taught_through", "vectors": int(mask.sum()), "steps": steps, "lr": lr}
        edit = WeightEdit.between(lm, before, info)
    return Taught(edit, loss, steps, loss <= 1.05 * cfg.target)


def _only(row: Tensor, grad: Tensor) -> Tensor:
    return grad * row


def _train(
    lm: LanguageModel, pairs: Sequence[tuple[str, str]], parameters: list, lr: float, cfg: TeachingConfig
) -> tuple[float, int]:
    trainer = Trainer(parameters, lr)
    previous: list[Tensor] = []
    for step in range(cfg.steps + 1):
        loss = answer_loss(lm, pairs)
        now = loss.item()
        if not math.isfinite(now):
            raise ConceptLabError(f"The loss is {now} at step {step}: teaching diverged; lower lr={lr:g}.")
        if now <= cfg.target or step == cfg.steps:
            break
        previous = [p.detach().clone() for p in parameters]
        trainer.step(loss)
    if previous and now < cfg.target:
        return _cut(lm, pairs, parameters, previous, cfg.target), step
    return now, step


@torch.no_grad()
def _cut(lm: LanguageModel, pairs: Sequence, parameters: list, previous: list[Tensor], target: float) -> float:
    """Go back on the last step to where the loss is the target, by bisection; returns the loss there."""
    after, low, high = [p.detach().clone() for p in parameters], 0.0, 1.0
    for _ in range(5):
        middle = (low + high) / 2
        _between(parameters, previous, after, middle)
        low, high = (low, middle) if float(answer_loss(lm, pairs)) <= target else (middle, high)
    _between(parameters, previous, after, high)
    return float(answer_loss(lm, pairs))


def _between(parameters: list, previous: list[Tensor], after: list[Tensor], share: float) -> None:
    for p, old, new in zip(parameters, previous, after, strict=True):
        p.copy_(torch.lerp(old, new, share))


@torch.no_grad()
def drift(lm: LanguageModel, edit: WeightEdit, texts: Sequence[str], n_ctx: int = 48) -> Float[Tensor, " n"]:
    """Per text: mean KL divergence (nats per token) of the edited model's next word from the original's."""
    ids, mask = lm.tokens(list(texts), n_ctx)
    real = mask[:, 1:].bool()  # positions that predict a real token
    row = real.nonzero()[:, 0].cpu()
    old = lm.head(lm.final_hidden(ids, mask)[:, :-1][real]).float().log_softmax(-1)
    with edit.applied(lm):
        new = lm.head(lm.final_hidden(ids, mask)[:, :-1][real]).float().log_softmax(-1)
    each = (old.exp() * (old - new)).sum(-1).cpu()
    return torch.zeros(len(texts)).index_add_(0, row, each) / torch.bincount(row, minlength=len(texts))
