"""What every sparse autoencoder here has in common: weights, decode, and how its directions meet the model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..models import LanguageModel


@dataclass(frozen=True)
class SAEConfig:
    """What a dictionary is and what it reads."""

    architecture: str  # "topk"
    d_in: int  # width of the activations
    d_sae: int  # number of features
    k: int  # active features per token (TopK)
    model_name: str  # the model it was trained on
    hook_layer: int  # 0-based
    hook_name: str  # TransformerLens' name of the place it reads, `LanguageModel.mlp_output(layer)`


class SAE(nn.Module):
    """`x_hat = encode(x) @ W_dec + b_dec` with unit-norm rows of `W_dec`; architectures define `encode`.

    Weights: `W_enc [d_in, d_sae]`, `b_enc [d_sae]`, `W_dec [d_sae, d_in]`, `b_dec [d_in]`.
    """

    def __init__(self, cfg: SAEConfig, seed: int = 0):
        super().__init__()
        self.cfg = cfg
        W_dec = torch.randn(cfg.d_sae, cfg.d_in, generator=torch.Generator().manual_seed(seed))
        W_dec = W_dec / W_dec.norm(dim=1, keepdim=True)
        self.W_dec = nn.Parameter(W_dec)
        self.W_enc = nn.Parameter(W_dec.T.clone())  # encoder starts as the decoder's transpose
        self.b_enc = nn.Parameter(torch.zeros(cfg.d_sae))
        self.b_dec = nn.Parameter(torch.zeros(cfg.d_in))

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Feature activations, non-negative and sparse."""
        raise NotImplementedError

    def decode(self, features: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_in"]:
        """Reconstruction from feature activations."""
        return features @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        return self.decode(self.encode(x))

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Give every decoder row norm 1."""
        self.W_dec /= self.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-8)

    @torch.no_grad()
    def scale_inputs(self, factor: float) -> None:
        """Fold `encode(x / factor) * factor` into the weights: trained on scaled activations, read raw ones."""
        self.b_enc *= factor
        self.b_dec *= factor

    @torch.no_grad()
    def residual_directions(self, lm: LanguageModel) -> Float[Tensor, "d_sae d_model"]:
        """Decoder rows as they act on the residual stream (the gain of a post-MLP norm included)."""
        return self.W_dec * lm.post_mlp_gain(self.cfg.hook_layer)
