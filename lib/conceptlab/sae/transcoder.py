"""Transcoders (Dunefsky et al. 2024): dictionaries that read the MLP's input and write its output."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core import ConceptLabError
from ..models import LanguageModel
from .base import EVERY, Features, SAEConfig
from .jumprelu import JumpReLUSAE

NAME = "transcoder"  # in SAEConfig.architecture; not in ARCHITECTURES, for none is trained here


@dataclass(frozen=True)
class TranscoderConfig(SAEConfig):
    """What a transcoder is, what it reads (`hook_name`) and what it writes."""

    d_out: int = 0  # width of what it writes
    hook_name_out: str = ""  # TransformerLens' name of the place it writes
    skip: bool = False  # whether a linear map of the input is added


class Transcoder(JumpReLUSAE):
    """`f = z * 1[z > threshold]` with `z = x W_enc + b_enc`; it writes `f W_dec + b_dec (+ x W_skip^T)`.

    A ReLU transcoder is one whose thresholds are 0. Weights: `W_enc [d_in, d_sae]`, `W_dec [d_sae, d_out]`,
    `b_dec [d_out]`, `W_skip [d_out, d_in]`. Read from files only; it cannot be trained or edit an MLP here.
    """

    def __init__(self, cfg: TranscoderConfig, seed: int = 0):
        super().__init__(cfg, seed)
        generator = torch.Generator().manual_seed(seed)
        W_dec = torch.randn(cfg.d_sae, cfg.d_out, generator=generator)
        self.W_dec = nn.Parameter(W_dec / W_dec.norm(dim=1, keepdim=True))
        self.b_dec = nn.Parameter(torch.zeros(cfg.d_out))
        self.W_skip = nn.Parameter(torch.zeros(cfg.d_out, cfg.d_in)) if cfg.skip else None

    def encode(self, x: Float[Tensor, "*batch d_in"], features: Features = EVERY) -> Float[Tensor, "*batch n"]:
        z = x @ self.W_enc[:, features] + self.b_enc[features]
        return z * (z > self.threshold[features])

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        written = self.decode(self.encode(x))
        return written if self.W_skip is None else written + x @ self.W_skip.T

    def objective(self, x, batch):
        raise ConceptLabError("Transcoders are read from files; train one with another library and load it.")

    @torch.no_grad()
    def read_before_gain(self, lm: LanguageModel) -> None:
        """Fold the gain of the norm before the MLP into the encoder: from its input without that gain to its input.

        `W_enc' = W_enc / gain`, row by row. Raises ConceptLabError where a gain is 0, for there the input is lost.
        """
        gain = lm.pre_mlp_gain(self.cfg.hook_layer).to(self.W_enc)
        if bool((gain == 0).any()):
            raise ConceptLabError(
                f"The transcoder reads the MLP's input before the gain, and {int((gain == 0).sum())} gains of layer "
                f"{self.cfg.hook_layer} are 0; use one that reads mlp.hook_in."
            )
        self.W_enc.div_(gain[:, None])
