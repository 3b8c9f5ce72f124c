"""One linear exit per layer on frozen states, and what it says about every item: losses, answers, hardness."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core import ConceptLabError
from .states import States


@dataclass(frozen=True)
class HeadConfig:
    """How the exits are fitted; the same for every layer, task and model."""

    steps: int = 40  # full-batch steps of Adam
    lr: float = 0.05  # decays to 0 along a cosine
    l2: float = 0.01  # on the sum of squared weights of a layer, nats; a third of it changes accuracies by one point
    folds: int = 3  # out-of-fold predictions for rewards and hardness
    seed: int = 0


@dataclass(frozen=True)
class Exits:
    """What the exits of all layers say about a list of items."""

    logits: Float[Tensor, "layers n classes"]
    targets: Int[Tensor, " n"]

    @property
    def losses(self) -> Float[Tensor, "n layers"]:
        """Cross-entropy of the right class at every exit, in nats."""
        logprobs = self.logits.log_softmax(-1)
        index = self.targets[None, :, None].expand(len(logprobs), -1, 1)
        return -logprobs.gather(2, index)[..., 0].T

    @property
    def answers(self) -> Int[Tensor, "n layers"]:
        return self.logits.argmax(-1).T

    @property
    def correct(self) -> Bool[Tensor, "n layers"]:
        return self.answers == self.targets[:, None]

    @property
    def confidence(self) -> Float[Tensor, "n layers"]:
        """Largest class probability at every exit."""
        return self.logits.softmax(-1).amax(-1).T

    @property
    def memorised(self) -> Int[Tensor, " n"]:
        return memorised_layer(self.correct)


def memorised_layer(correct: Bool[Tensor, "n layers"]) -> Int[Tensor, " n"]:
    """The smallest layer (from 1) from which every exit is right; the number of layers where the last one is wrong.

    ConsistentEE's measure of hardness (arXiv 2312.11882).
    """
    n_layers = correct.shape[1]
    settled = correct.flip(1).long().cumprod(1).sum(1)  # right exits in a row, counted from the last
    return (n_layers - settled + 1).clamp(max=n_layers)


def fit_heads(
    x: Float[Tensor, "layers n d"], y: Int[Tensor, " labels"], n_classes: int, cfg: HeadConfig = HeadConfig()
) -> tuple[Float[Tensor, "layers d classes"], Float[Tensor, "layers 1 classes"]]:
    """Multinomial logistic regression in every layer at once, full batch.

    On a frozen model the paper's joint loss `sum_i i CE_i / sum_i i` falls apart into one problem per layer, so its
    weights change nothing but the step sizes, which Adam takes out again.
    """
    if x.shape[1] != len(y):
        raise ConceptLabError(f"There are {x.shape[1]} states and {len(y)} labels; give one label a state.")
    W = torch.zeros(len(x), x.shape[2], n_classes, requires_grad=True)
    b = torch.zeros(len(x), 1, n_classes, requires_grad=True)
    adam = torch.optim.Adam([W, b], lr=cfg.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, cfg.steps)
    index = y[None, :, None].expand(len(x), -1, 1)
    for _ in range(cfg.steps):
        loss = -(torch.baddbmm(b, x, W).log_softmax(-1).gather(2, index)).mean(1).sum() + cfg.l2 * W.square().sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    return W.detach(), b.detach()


def fit_exits(states: States, cfg: HeadConfig = HeadConfig()) -> tuple[Exits, Exits]:
    """(what out-of-fold heads say about the training items, what heads of all training items say about the test).

    A head is nearly always right about items it was fitted on, and rewards made of that call every layer good enough:
    the policy then leaves in the first layers. So a training item is judged by heads that have not seen it.
    """
    n = len(states.y_train)
    fold = torch.randperm(n, generator=torch.Generator().manual_seed(cfg.seed)) % cfg.folds
    out = torch.empty(states.n_layers, n, states.n_classes)
    for k in range(cfg.folds):
        fitted = fit_heads(states.train[:, fold != k], states.y_train[fold != k], states.n_classes, cfg)
        out[:, fold == k] = read_exits(fitted, states.train[:, fold == k], states.y_train[fold == k]).logits
    fitted = fit_heads(states.train, states.y_train, states.n_classes, cfg)
    return Exits(out, states.y_train), read_exits(fitted, states.test, states.y_test)


def read_exits(
    fitted: tuple[Float[Tensor, "layers d classes"], Float[Tensor, "layers 1 classes"]],
    x: Float[Tensor, "layers n d"],
    y: Int[Tensor, " n"],
) -> Exits:
    """What fitted heads say about other items."""
    W, b = fitted
    return Exits(torch.baddbmm(b, x, W), y)
