"""Gated sparse autoencoder (Rajamanoharan et al. 2024a): one path decides which features fire, one how strongly."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .base import EVERY, SAE, Batch, Features, Recipe


class GatedSAE(SAE):
    """`f = 1[pi > 0] * ReLU(exp(r_mag) * (x - b_dec) W_enc + b_mag)` with the gate `pi = (x - b_dec) W_enc + b_gate`.

    The magnitude path shares the gate's weights up to a factor per feature, `W_mag = exp(r_mag) W_enc`. The penalty
    falls on the gate alone, so the magnitudes need not shrink.
    """

    feature_vectors = ("b_gate", "b_mag", "r_mag")
    recipe = Recipe(lr=4e-3, encoder_scale=0.1, sparsity=0.35)
    b_gate: nn.Parameter
    b_mag: nn.Parameter
    r_mag: nn.Parameter

    def encode(self, x: Float[Tensor, "*batch d_in"], features: Features = EVERY) -> Float[Tensor, "*batch n"]:
        projected = (x - self.b_dec) @ self.W_enc[:, features]
        magnitude = F.relu(projected * self.r_mag[features].exp() + self.b_mag[features])
        return magnitude * (projected + self.b_gate[features] > 0)

    def detectors(self, features: Features = EVERY) -> Float[Tensor, "d_in n"]:
        return super().detectors(features) * self.r_mag[features].exp()

    @torch.no_grad()
    def fold_norms(self) -> None:
        """The gate may be scaled freely as well; here both paths end with the same weights (`r_mag = 0`)."""
        norms, magnitude = self.norms, self.r_mag.exp()
        self.W_enc.mul_(norms * magnitude)
        self.b_gate.mul_(norms * magnitude)
        self.b_mag.mul_(norms)
        self.r_mag.zero_()
        self.W_dec.div_(norms[:, None])

    def objective(self, x: Float[Tensor, "batch d_in"], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruction + penalty on `ReLU(pi)` + reconstruction from `ReLU(pi)` with a frozen decoder.

        The step function passes no gradient, so the third term is what teaches the gate; it must not move the decoder.
        Normalised as in `ReLUSAE.objective`.
        """
        gate = self.scores(x, self.b_gate)
        opened = F.relu(gate)
        features = F.relu((gate - self.b_gate) * self.r_mag.exp() + self.b_mag) * (gate > 0)
        error = x - self.decode(features)
        frozen = x - (opened @ self.W_dec.detach() + self.b_dec.detach())
        penalty = opened.sum() / (batch.variance * len(x)).sqrt()
        loss = (error.square().sum() + frozen.square().sum()) / batch.variance + batch.sparsity * penalty
        return loss, self.report(error, features, batch)
