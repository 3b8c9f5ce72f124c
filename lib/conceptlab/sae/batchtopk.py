"""BatchTopK sparse autoencoder (Bussmann et al. 2024): k features per token on average, some tokens with more."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..core import largest
from .base import EVERY, Batch, Features, Recipe, SAEConfig
from .sparse import batch_scores, weighted_rows
from .topk import TopKSAE


class BatchTopKSAE(TopKSAE):
    """Training keeps the `k * batch` largest scores of a batch; `encode` keeps those above a fixed `threshold`.

    `threshold` (a buffer) is a running mean of the smallest score that a training batch kept, so a token's features do
    not depend on the other tokens beside it.
    """

    thresholds = ("threshold",)
    recipe = Recipe(lr=4e-3, encoder_scale=0.1, resamples=False)
    momentum = 0.95  # of the running mean: about 20 batches
    threshold: Tensor

    def __init__(self, cfg: SAEConfig, seed: int = 0):
        super().__init__(cfg, seed)
        self.register_buffer("threshold", torch.zeros(()))

    def encode(self, x: Float[Tensor, "*batch d_in"], features: Features = EVERY) -> Float[Tensor, "*batch n"]:
        scores = F.relu((x - self.b_dec) @ self.W_enc[:, features] + self.b_enc[features])
        return scores * (scores > self.threshold)

    def encode_batch(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """As in training: the `k * batch` largest scores of these tokens together."""
        scores = self.pre_activations(x)
        return scores * (scores >= largest(scores.view(1, -1), self.cfg.k * len(x))[0].min())

    def objective(self, x: Float[Tensor, "batch d_in"], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """As `TopKSAE.objective`, the selection made over the batch. Moves `threshold`."""
        bias, world = self.b_enc - self.b_dec @ self.W_enc, batch.world
        count = self.cfg.k * len(x) * world.size  # of all processes; all that are kept may be of one

        def smallest_kept(own: Tensor) -> Tensor:
            return largest(world.gather(own)[None], count)[0].min()

        own = min(count, self.cfg.d_sae * len(x))
        values, tokens, features, cut = batch_scores(x, self.W_enc, bias, own, smallest_kept)
        with torch.no_grad():
            moved = torch.lerp(cut, self.threshold, self.momentum)
            self.threshold.copy_(torch.where(self.threshold > 0, moved, cut))
        uses = torch.bincount(tokens, minlength=len(x))
        error = x - weighted_rows(values, features, self.W_dec, uses.cumsum(0) - uses) - self.b_dec
        loss = error.square().sum() / batch.variance
        info = self.sparse_report(loss, values, features, len(x), batch)
        return loss + self.auxiliary_loss(x, error, bias, batch), info
