"""BatchTopK sparse autoencoder (Bussmann et al. 2024): k features per token on average, some tokens with more."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from .base import Recipe, SAEConfig, variance_sum
from .distributed import SOLO, World
from .topk import TopKSAE


class BatchTopKSAE(TopKSAE):
    """Training keeps the `k * batch` largest scores of a batch; `encode` keeps those above a fixed `threshold`.

    `threshold` (a buffer) is a running mean of the smallest score that a training batch kept, so a token's features do
    not depend on the other tokens beside it.
    """

    thresholds = ("threshold",)
    recipe = Recipe(lr=4e-3, encoder_scale=0.1, resamples=False)
    momentum = 0.95  # of the running mean: about 20 batches

    def __init__(self, cfg: SAEConfig, seed: int = 0):
        super().__init__(cfg, seed)
        self.register_buffer("threshold", torch.zeros(()))

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        scores = F.relu((x - self.b_dec) @ self.W_enc + self.b_enc)
        return scores * (scores > self.threshold)

    def encode_batch(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """As in training: the `k * batch` largest scores of these tokens together."""
        scores = self.pre_activations(x)
        return scores * (scores >= self._cut(scores, SOLO))

    def _cut(self, scores: Float[Tensor, "batch d_sae"], world: World) -> Float[Tensor, ""]:
        """The smallest of the `k * batch` largest scores over all processes."""
        n = self.cfg.k * len(scores) * world.size
        own = scores.detach().flatten()
        top = own.topk(min(n, len(own)), sorted=False).values  # all the kept ones may be of one process
        everywhere = world.gather(top)
        return everywhere.topk(min(n, len(everywhere)), sorted=False).values.min()

    def loss(
        self,
        x: Float[Tensor, "batch d_in"],
        dead: Bool[Tensor, " d_sae"] | None = None,
        sparsity: float | None = None,
        world: World = SOLO,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `TopKSAE.loss`, the selection made over the batch. Moves `threshold`."""
        scores = F.relu(self.scores(x, self.b_enc))
        cut = self._cut(scores, world)
        with torch.no_grad():
            moved = torch.lerp(cut, self.threshold, self.momentum)
            self.threshold.copy_(torch.where(self.threshold > 0, moved, cut))
        features = scores * (scores >= cut)
        error = x - self.decode(features)
        variance = variance_sum(x, world)
        bias = self.b_enc - self.b_dec @ self.W_enc
        loss = error.square().sum() / variance + self.auxiliary_loss(x, error, bias, dead, world)
        return loss, self.report(error, features, variance, world)
