"""The one loop of what is trained here, and batches of the texts to forget and to keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from ...core import ConceptLabError
from ...data import row_batches, text_rows
from ...edits import Trainer, WeightEdit, trainable
from ...models import LanguageModel

SCALES = tuple(i / 12 for i in range(1, 13))  # shares of a change that was trained once


class Batch(NamedTuple):
    """Rows of tokens to forget and to keep."""

    forget: tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]
    keep: tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]


def batches(
    lm: LanguageModel, forget: Sequence[str], keep: Sequence[str], steps: int, size: int, n_ctx: int, seed: int
) -> list[Batch]:
    """`steps` batches: `size` rows to forget and half as many to keep, of `n_ctx` tokens at most."""
    own = row_batches(text_rows(lm, forget, n_ctx), size, seed)
    other = row_batches(text_rows(lm, keep, n_ctx), max(1, size // 2), seed)
    return [Batch(lm.pad(next(own)), lm.pad(next(other))) for _ in range(steps)]


def rate(lm: LanguageModel, names: Sequence[str], relative: float) -> float:
    """A learning rate given in root mean squares of the weights it trains: one number serves models of any scale."""
    named = lm.parameters()
    squares = sum(float(named[name].float().square().sum()) for name in names)
    return relative * (squares / sum(named[name].numel() for name in names)) ** 0.5


def trained_edit(
    lm: LanguageModel,
    names: Sequence[str],
    loss: Callable[[int], Tensor],
    steps: int,
    lr: float,
    info: dict,
    seed: int = 0,
    mask: Callable[[str, Tensor], Tensor] | None = None,
) -> WeightEdit:
    """The edit that training the weights `names` on `loss(step)` amounts to; the model itself stays bit-identical.

    `mask(name, gradient)`: what is left of a gradient. No weight decay: it would shrink what no gradient reaches.
    Raises ConceptLabError for a training that diverges.
    """
    chosen: dict[str, nn.Parameter] = {name: lm.parameters()[name] for name in names}
    before = {name: p.detach().clone() for name, p in chosen.items()}
    with torch.enable_grad(), trainable(lm, chosen):
        trainer = Trainer(list(chosen.values()), lr, seed=seed)
        hooks = [p.register_hook(lambda g, name=n: mask(name, g)) for n, p in chosen.items()] if mask else []
        try:
            for step in range(steps):
                value = loss(step)
                if not torch.isfinite(value):
                    raise ConceptLabError(f"The training diverged at step {step}; lower the rate (it was {lr:.2g}).")
                trainer.step(value)
            return WeightEdit.between(lm, before, info | {"steps": steps, "lr": lr})
        finally:
            for hook in hooks:
                hook.remove()
