"""How a dictionary is trained, and which settings make sense: checked before a token is read."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeGuard

from ..core import ConceptLabError
from .architectures import architecture


@dataclass(frozen=True)
class TrainConfig:
    """How a dictionary is trained. None: what the architecture's `recipe` says."""

    d_sae: int = 4_096  # features
    k: int = 32  # active features per token (topk, batchtopk); where the threshold starts (jumprelu)
    steps: int = 1_000  # optimisation steps
    batch_size: int = 512  # tokens per step, over all processes
    lr: float | None = None  # Adam; linear warm-up and decay to zero. Tuned for a few hundred steps
    warmup: float = 0.05  # share of the steps in which the learning rate rises
    encoder_scale: float | None = None  # the encoder starts as this times the decoder's transpose
    dead_after: int = 20_000  # tokens without firing after which a feature counts as dead
    seed: int = 0
    architecture: str = "topk"  # relu, gated, topk, batchtopk or jumprelu
    sparsity: float | None = None  # coefficient of the L1 (relu, gated) or L0 (jumprelu) penalty, no unit
    sparsity_warmup: float = 0.1  # share of the steps in which that coefficient rises from zero
    decoder_norm_penalty: bool = False  # relu: penalise sum f_i |W_dec_i| and leave the norms free
    bias_init: str = "mean"  # b_dec starts as the "mean" or the "geometric_median" of the activations
    resample_at: tuple[float, ...] = (0.2, 0.4, 0.6)  # shares of the steps after which dead features are restarted
    resamples: bool | None = None  # whether they are; otherwise an auxiliary loss alone revives them
    freeze_decoder: bool = False  # the decoder stays as it is drawn; encoder and biases alone are trained (a control)
    checkpoint_every: int = 500  # steps between checkpoints, where a folder for them is given


_WHOLE = {"d_sae": 1, "k": 1, "steps": 1, "batch_size": 1, "dead_after": 0, "checkpoint_every": 1, "seed": 0}


def check_config(cfg: TrainConfig) -> TrainConfig:
    """`cfg` with the architecture's recipe where it says None. Raises ConceptLabError for what does not fit."""
    recipe = architecture(cfg.architecture).recipe
    for name, least in _WHOLE.items():
        value = getattr(cfg, name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
            raise ConceptLabError(f"{name} is {value!r}; give a whole number of at least {least}.")
    if cfg.k > cfg.d_sae:
        raise ConceptLabError(f"k = {cfg.k} active features need 1 <= k <= d_sae = {cfg.d_sae}; choose another k.")
    if cfg.decoder_norm_penalty and cfg.architecture != "relu":
        raise ConceptLabError("decoder_norm_penalty is an option of the relu architecture; leave it off for others.")
    if cfg.bias_init not in ("mean", "geometric_median"):
        raise ConceptLabError(f"bias_init is 'mean' or 'geometric_median', not {cfg.bias_init!r}.")
    if cfg.freeze_decoder and (cfg.resamples or cfg.decoder_norm_penalty):
        raise ConceptLabError(
            "A frozen decoder is neither restarted nor scaled; leave resamples and decoder_norm_penalty off."
        )
    if cfg.freeze_decoder:
        cfg = replace(cfg, resamples=False)
    cfg = replace(
        cfg,
        lr=recipe.lr if cfg.lr is None else cfg.lr,
        encoder_scale=recipe.encoder_scale if cfg.encoder_scale is None else cfg.encoder_scale,
        sparsity=recipe.sparsity if cfg.sparsity is None else cfg.sparsity,
        resamples=recipe.resamples if cfg.resamples is None else cfg.resamples,
    )
    for name in ("lr", "encoder_scale"):
        if not _number(getattr(cfg, name)) or getattr(cfg, name) <= 0:
            raise ConceptLabError(f"{name} is {getattr(cfg, name)!r}; give a positive number, such as {recipe.lr:g}.")
    if not _number(cfg.sparsity) or cfg.sparsity < 0:
        raise ConceptLabError(
            f"sparsity is {cfg.sparsity!r}; give a number of at least 0, such as {recipe.sparsity:g}."
        )
    for name in ("warmup", "sparsity_warmup"):
        _share(name, getattr(cfg, name))
    for share in cfg.resample_at:
        _share("resample_at", share)
    return cfg


def _share(name: str, value: float) -> None:
    if not _number(value) or not 0 <= value <= 1:
        raise ConceptLabError(f"{name} is {value!r}; give a share of the steps between 0 and 1.")


def _number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
