"""ReLU sparse autoencoder with an L1 penalty (Bricken et al. 2023; Anthropic's April 2024 update as an option)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .base import EVERY, SAE, Batch, Features, Recipe


class ReLUSAE(SAE):
    """`f = ReLU((x - b_dec) W_enc + b_enc)`, trained on `|x - x_hat|^2 + l1 * sum_i f_i`.

    With `unit_norm = False` (`TrainConfig(decoder_norm_penalty=True)`) the decoder's norms are free and the penalty is
    `l1 * sum_i f_i |W_dec_i|`; they are folded into the features when training ends. The penalty pulls every
    activation towards zero, so that reconstructions come out too short ("shrinkage").
    """

    recipe = Recipe(lr=4e-3, encoder_scale=0.1, sparsity=0.21)
    b_enc: nn.Parameter

    def encode(self, x: Float[Tensor, "*batch d_in"], features: Features = EVERY) -> Float[Tensor, "*batch n"]:
        return F.relu((x - self.b_dec) @ self.W_enc[:, features] + self.b_enc[features])

    def objective(self, x: Float[Tensor, "batch d_in"], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """`sum |x - x_hat|^2 / V + l1 * sum f / (n s)` with `V` the variance of the n tokens and `s^2 = V / n`.

        Both terms are pure numbers: `l1` need not change with the scale of the activations. A feature alone would be
        shortened by `l1 s / 2`.
        """
        features = F.relu(self.scores(x, self.b_enc))
        error = x - self.decode(features)
        size = features if self.unit_norm else features * self.W_dec.norm(dim=1)
        penalty = size.sum() / (batch.variance * len(x)).sqrt()
        loss = error.square().sum() / batch.variance + batch.sparsity * penalty
        return loss, self.report(error, features, batch)

    def finish(self) -> None:
        self.fold_norms()

    @torch.no_grad()
    def fold_norms(self) -> None:
        norms = self.norms
        self.W_enc.mul_(norms)
        self.b_enc.mul_(norms)
        self.W_dec.div_(norms[:, None])
