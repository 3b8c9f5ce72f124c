"""Unlearning by logit difference: what a small assistant has learned of the concept is subtracted from the logits
(ULD, Ji et al. 2024, arXiv 2406.08607).

    logits = head(h) - alpha head(a),   a = B A x / rms(x),   x the state after the first layers

The assistant is trained the wrong way round: to predict the texts to forget, and to be *uniform* on the texts to keep
(cross-entropy, and KL from the uniform distribution). Where it is uniform, the subtraction changes nothing; no prompt
is classified. Differences: the paper's assistant is the first layers with LoRA, a pass of its own; here the first
layers stay as they are and only a map of low rank behind them is trained, so that it rides on the model's own pass, and
since the head is linear the subtraction happens before it. The paper also keeps to the tokens that the model itself
finds likely, which no sum of logits can do and which is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import ConceptLabError, NotPossible
from ...data import Concept, row_batches, text_rows
from ...edits import Trainer
from ...models import Change, LanguageModel, Reading, guarded
from ..method import Method
from .runtime import RunTime

if TYPE_CHECKING:
    from ..shared import Shared


@dataclass(frozen=True, repr=False)
class LogitDifference(RunTime):
    """An assistant and how much of it is subtracted."""

    layer: int  # whose output the assistant reads
    A: Float[Tensor, "rank d_model"]
    B: Float[Tensor, "d_model rank"]
    alpha: float

    def scaled(self, factor: float) -> LogitDifference:
        return replace(self, alpha=factor * self.alpha)

    def guard(self, lm: LanguageModel) -> Change:
        seen: list[Tensor] = []

        def end(hidden: Tensor, _reading: Reading) -> Tensor:
            return hidden - (self.alpha * assistant(seen[0], self.A, self.B)).to(hidden)

        def begin(change: Change) -> None:
            for part in (
                lm.intervene({("resid_post", self.layer): lambda x: seen.__setitem__(slice(None), [x])}),
                guarded(lm, "logit difference", end=end),
            ):
                part.begin(change)  # both come off with this change

        return Change(lm, "logit difference", begin, weights=False)


def assistant(
    x: Float[Tensor, "*batch d_model"], A: Float[Tensor, "rank d_model"], B: Float[Tensor, "d_model rank"]
) -> Float[Tensor, "*batch d_model"]:
    """What the assistant hands to the head; zeros (a uniform distribution) before it has learned anything."""
    x = x.float()
    return x * x.pow(2).mean(-1, keepdim=True).add(1e-6).rsqrt() @ A.T @ B.T


def uniform_loss(logits: Float[Tensor, "n d_vocab"]) -> Float[Tensor, ""]:
    """KL from the uniform distribution: `logsumexp(l) - mean(l) - log V`, nats, mean over positions."""
    return (logits.logsumexp(-1) - logits.mean(-1)).mean() - math.log(logits.shape[-1])


@dataclass(frozen=True)
class DifferenceConfig:
    """The assistant's training and use."""

    alpha: float = 0.5  # of its logits that are subtracted
    depth: float = 1 / 3  # layers it reads through, as a share of all
    rank: int = 64
    steps: int = 24
    batch_size: int = 6  # rows of each kind per step
    n_ctx: int = 24  # tokens per row
    lr: float = 3e-3  # AdamW
    uniform: float = 1.0  # weight of being uniform on what is to be kept


def train_assistant(
    lm: LanguageModel, forget: Sequence[str], keep: Sequence[str], cfg: DifferenceConfig, seed: int = 0
) -> LogitDifference:
    """The assistant that predicts `forget` and is uniform on `keep`; alpha as in `cfg`."""
    layer, generator = lm.check_layer(int(cfg.depth * lm.n_layers)), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        probe = lm.embedding()[:8]
        if not torch.allclose(lm.head(2 * probe), 2 * lm.head(probe), rtol=1e-2, atol=1e-3):
            raise NotPossible(f"The head of {lm.name} caps its logits, so none can be subtracted before it.")
    A = torch.nn.Parameter((torch.randn(cfg.rank, lm.d_model, generator=generator) / lm.d_model**0.5).to(lm.device))
    B = torch.nn.Parameter(torch.zeros(lm.d_model, cfg.rank, device=lm.device))
    trainer = Trainer([A, B], cfg.lr, seed=seed)
    batches = [row_batches(text_rows(lm, texts, cfg.n_ctx), cfg.batch_size, seed) for texts in (forget, keep)]
    for step in range(cfg.steps):
        logits = []
        for source in batches:
            ids, mask = lm.pad(next(source))
            x = lm.capture(ids, [("resid_post", layer)], mask)["resid_post", layer]
            at = mask[:, 1:] & mask[:, :-1]
            with torch.enable_grad():
                logits.append((lm.head(assistant(x[:, :-1][at], A, B).to(lm.dtype)).float(), ids[:, 1:][at]))
        with torch.enable_grad():
            (told, targets), (kept, _) = logits
            loss = torch.nn.functional.cross_entropy(told, targets) + cfg.uniform * uniform_loss(kept)
            if not torch.isfinite(loss):
                raise ConceptLabError(f"The assistant diverged at step {step}; lower lr={cfg.lr:g}.")
            trainer.step(loss)
    return LogitDifference(layer, A.detach(), B.detach(), cfg.alpha)


def fit_difference(lm: LanguageModel, concept: Concept, config: DifferenceConfig, shared: Shared) -> LogitDifference:
    """Trained once for all strengths."""
    once = replace(config, alpha=1.0)
    found = shared.made(("assistant", once), lambda: train_assistant(lm, shared.forget, shared.keep, once, shared.seed))
    return found.scaled(config.alpha)


ULD = Method(
        "uld", "run-time", "ULD: unlearning by logit difference (arXiv 2406.08607)", DifferenceConfig(), fit_difference,
        {"alpha": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.25, 1.5, 2.0)}, ("forget", "keep"), "1 min",
    )  # fmt: skip
