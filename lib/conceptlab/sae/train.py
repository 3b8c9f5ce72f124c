"""Train a TopK dictionary on a harvest, and keep small live dictionaries for the notebooks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from tqdm import tqdm

from ..activations import Harvest, harvest
from ..cache import atomic_path, cache_dir
from ..models import LanguageModel
from ..text import TokenRows
from .base import SAEConfig
from .io import load_sae, save_sae
from .topk import TopKSAE

_RECIPE = 2  # raised when training changes, so that dictionaries of the old recipe are not found again


@dataclass(frozen=True)
class TrainConfig:
    """How a dictionary is trained."""

    d_sae: int = 4_096  # features
    k: int = 32  # active features per token
    steps: int = 1_000  # optimisation steps
    batch_size: int = 512  # tokens per step
    lr: float = 4e-3  # Adam; linear warm-up and decay to zero. Tuned for a few hundred steps
    warmup: float = 0.05  # share of the steps
    encoder_scale: float = 0.1  # the encoder starts as this times the decoder's transpose
    dead_after: int = 20_000  # tokens without firing after which a feature counts as dead
    seed: int = 0


@dataclass
class History:
    """One entry per logged step."""

    step: list[int]
    fve: list[float]  # share of variance explained on the training batch
    dead: list[float]  # share of features that have not fired for `dead_after` tokens


def train_topk(
    lm: LanguageModel, data: Harvest, layer: int, cfg: TrainConfig = TrainConfig(), progress: bool = True
) -> tuple[TopKSAE, History]:
    """Train on `data`; the returned dictionary reads raw activations (the training scale is folded in)."""
    sae_cfg = SAEConfig("topk", data.d_model, cfg.d_sae, cfg.k, lm.name, layer, lm.mlp_output(layer))
    sae = TopKSAE(sae_cfg, cfg.seed).to(lm.device)
    sample = next(data.batches(layer, max(8_192, cfg.d_sae), cfg.seed, steps=1)).to(lm.device)
    scale = float(sample.square().mean().sqrt())  # activations are divided by it during training
    _start_from_data(sae, sample / scale, cfg)
    optimiser = torch.optim.Adam(sae.parameters(), lr=cfg.lr, betas=(0.9, 0.999), fused=True)
    idle = torch.zeros(cfg.d_sae, dtype=torch.long, device=lm.device)
    history = History([], [], [])
    bar = tqdm(total=cfg.steps, unit="step", disable=not progress, desc=f"SAE layer {layer}", mininterval=2)
    for step, x in enumerate(data.batches(layer, cfg.batch_size, cfg.seed, cfg.steps)):
        x = x.to(lm.device) / scale
        for group in optimiser.param_groups:
            group["lr"] = cfg.lr * _schedule(step, cfg)
        loss, info = sae.loss(x, dead=idle > cfg.dead_after)
        optimiser.zero_grad()
        loss.backward()
        _remove_parallel_gradient(sae)
        optimiser.step()
        sae.normalise_decoder()
        idle += len(x)
        idle[info["indices"].unique()] = 0
        if step % 10 == 0 or step == cfg.steps - 1:
            history.step.append(step)
            history.fve.append(float(info["fve"]))
            history.dead.append(float((idle > cfg.dead_after).float().mean()))
            bar.set_postfix(fve=f"{history.fve[-1]:.3f}", dead=f"{history.dead[-1]:.3f}", refresh=False)
        bar.update()
    bar.close()
    sae.scale_inputs(scale)
    return sae.requires_grad_(False), history


@torch.no_grad()
def _start_from_data(sae: TopKSAE, sample: Tensor, cfg: TrainConfig) -> None:
    """Begin with activations as decoder rows: 100 steps from there go further than 300 from random rows."""
    sae.b_dec.copy_(sample.mean(0))
    generator = torch.Generator().manual_seed(cfg.seed)
    picks = torch.randperm(len(sample), generator=generator)[: cfg.d_sae].to(sample.device)
    rows = sample[picks] - sae.b_dec
    noise = 1e-3 * torch.randn(cfg.d_sae, sample.shape[1], generator=generator)  # no two rows are the same
    if len(rows) < cfg.d_sae:  # fewer tokens than features: the rest stays random
        rows = torch.cat([rows, sae.W_dec[len(rows) :] * rows.norm(dim=1).mean()])
    sae.W_dec.copy_(rows + noise.to(rows.device))
    sae.normalise_decoder()
    sae.W_enc.copy_(cfg.encoder_scale * sae.W_dec.T)


def _schedule(step: int, cfg: TrainConfig) -> float:
    warm = max(1, int(cfg.warmup * cfg.steps))
    return min((step + 1) / warm, (cfg.steps - step) / max(1, cfg.steps - warm), 1.0)


@torch.no_grad()
def _remove_parallel_gradient(sae: TopKSAE) -> None:
    """Drop the part of the decoder's gradient that would only change the rows' norms."""
    grad, W_dec = sae.W_dec.grad, sae.W_dec
    grad -= (grad * W_dec).sum(1, keepdim=True) * W_dec


def live_dictionaries(
    lm: LanguageModel, rows: TokenRows, layers: Sequence[int], cfg: TrainConfig, progress: bool = True
) -> dict[int, TopKSAE]:
    """Small dictionaries of several layers, trained here and now, and kept in the cache for the next notebook."""
    key = json.dumps([_RECIPE, lm.name, asdict(cfg), hashlib.sha256(rows.ids.numpy().tobytes()).hexdigest()])
    root = cache_dir() / "live_saes" / hashlib.sha256(key.encode()).hexdigest()[:16]
    found, missing = {}, [layer for layer in layers if not (root / f"layer_{layer:02d}" / "cfg.json").exists()]
    if missing:
        data = harvest(lm, rows, list(layers), progress=progress)
    for layer in layers:
        folder = root / f"layer_{layer:02d}"
        if layer in missing:
            sae, _ = train_topk(lm, data, layer, cfg, progress)
            with atomic_path(folder) as temporary:
                save_sae(sae, temporary)
        found[layer] = load_sae(folder)
    return found
