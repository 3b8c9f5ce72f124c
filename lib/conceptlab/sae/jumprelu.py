"""JumpReLU sparse autoencoder (Rajamanoharan et al. 2024b): a learned threshold per feature and an L0 penalty."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .base import EVERY, SAE, Batch, Features, Recipe


def jump_relu(
    z: Float[Tensor, "batch n"], threshold: Float[Tensor, " n"], bandwidth: float | Float[Tensor, ""]
) -> Float[Tensor, "batch n"]:
    """`z * 1[z > threshold]`; the gradient of the threshold is `-(threshold / e) K((z - threshold) / e)`.

    `K` is the rectangle of width and height 1, `e` the bandwidth. The gradient of `z` is exact.
    """
    return _JumpReLU.apply(z, threshold, bandwidth)


def step(
    z: Float[Tensor, "batch n"], threshold: Float[Tensor, " n"], bandwidth: float | Float[Tensor, ""]
) -> Float[Tensor, "batch n"]:
    """`1[z > threshold]`, whose sum is L0; the gradient of the threshold is `-(1 / e) K((z - threshold) / e)`."""
    return _Step.apply(z, threshold, bandwidth)


def _near(z: Tensor, threshold: Tensor, bandwidth: float | Tensor) -> Tensor:
    return (z - threshold).abs() < bandwidth / 2


class _JumpReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, threshold, bandwidth):
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return z * (z > threshold)

    @staticmethod
    def backward(ctx, grad):
        z, threshold = ctx.saved_tensors
        d_threshold = -threshold / ctx.bandwidth * (grad * _near(z, threshold, ctx.bandwidth)).sum(0)
        return grad * (z > threshold), d_threshold, None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, threshold, bandwidth):
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return (z > threshold).to(z.dtype)

    @staticmethod
    def backward(ctx, grad):
        z, threshold = ctx.saved_tensors
        return None, -(grad * _near(z, threshold, ctx.bandwidth)).sum(0) / ctx.bandwidth, None


class JumpReLUSAE(SAE):
    """`f = z * 1[z > threshold]` with `z = (x - b_dec) W_enc + b_enc` and `threshold = exp(log_threshold) > 0`."""

    feature_vectors = ("b_enc", "log_threshold")
    recipe = Recipe(lr=4e-3, encoder_scale=0.1, sparsity=2.5e-3)
    lr_factors: ClassVar = {"log_threshold": 10.0}  # thresholds follow encoder columns that grow tenfold
    resample_scale = 1.0  # the threshold stays: a small column would never reach it
    bandwidth = 0.1  # of the rectangle, in root mean variances of the batch
    b_enc: nn.Parameter
    log_threshold: nn.Parameter

    @property
    def threshold(self) -> Float[Tensor, " d_sae"]:
        """Smallest pre-activation that lets a feature fire."""
        return self.log_threshold.exp()

    def encode(self, x: Float[Tensor, "*batch d_in"], features: Features = EVERY) -> Float[Tensor, "*batch n"]:
        z = (x - self.b_dec) @ self.W_enc[:, features] + self.b_enc[features]
        return z * (z > self.threshold[features])

    def objective(self, x: Float[Tensor, "batch d_in"], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """`sum |x - x_hat|^2 / V + l0 * L0` with `V` the variance and `L0` the mean number of active features.

        A feature alone pays for itself where its activation exceeds `s sqrt(l0)`, `s^2 = V / n`.
        """
        bandwidth = self.bandwidth * (batch.variance / len(x)).sqrt()
        z, threshold = self.scores(x, self.b_enc), self.threshold
        features = jump_relu(z, threshold, bandwidth)
        error = x - self.decode(features)
        count = step(z, threshold, bandwidth).sum() / len(x)
        loss = error.square().sum() / batch.variance + batch.sparsity * count
        return loss, self.report(error, features, batch)

    @torch.no_grad()
    def start(self, sample: Float[Tensor, "n d_in"]) -> None:
        """One threshold for all features, at which k of them fire per token of the sample."""
        z = self.scores(sample[:1_024], self.b_enc).flatten()
        cut = z.topk(max(1, min(self.cfg.k * len(sample[:1_024]), len(z) - 1))).values[-1]
        self.log_threshold.fill_(float(cut.clamp_min(1e-6).log()))

    @torch.no_grad()
    def scale_inputs(self, factor: float) -> None:
        super().scale_inputs(factor)
        self.log_threshold.add_(torch.tensor(factor).log().item())

    @torch.no_grad()
    def fold_norms(self) -> None:
        norms = self.norms
        self.W_enc.mul_(norms)
        self.b_enc.mul_(norms)
        self.log_threshold.add_(norms.log())
        self.W_dec.div_(norms[:, None])

    @torch.no_grad()
    def restart_features(self, dead: Bool[Tensor, " d_sae"], rows: Float[Tensor, "n_dead d_in"]) -> None:
        live = ~dead if not bool(dead.all()) else dead
        middle = self.log_threshold[live].median()
        super().restart_features(dead, rows)
        self.log_threshold[dead] = middle
