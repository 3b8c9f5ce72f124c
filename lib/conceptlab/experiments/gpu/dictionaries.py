"""Checks of dictionaries: sparse steps against dense ones, every architecture in training, splicing, firings."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ...autointerp import sae_firings
from ...data import token_rows
from ...sae import (
    ARCHITECTURES,
    SAEConfig,
    TopKSAE,
    TrainConfig,
    make_sae,
    quality,
    spliced_loss,
    train_sae,
)
from .bench import Bench, Figures, require


def sparse_steps(bench: Bench) -> Figures:
    """A step with sparse gradients against the same step with dense ones: gradients, and tokens per second.

    The dense step is what autograd makes of `TopKSAE.encode` and `decode`; both in float32 and, where the device is a
    GPU, in bfloat16 under autocast, as `train_sae` runs there.
    """
    s = bench.sizes
    sae = make_sae(SAEConfig("topk", s.d_in, s.d_sae, s.k, "", 0, "")).to(bench.device)
    assert isinstance(sae, TopKSAE)
    x = _activations(bench, s.sae_batch)
    gradients = {name: _gradient(sae, x, name) for name in ("sparse", "dense")}
    pairs = zip(gradients["sparse"], gradients["dense"], strict=True)
    off = max(float((a - b).norm() / b.norm()) for a, b in pairs)
    # not 0: where the k-th and the next score are as good as equal, the two may choose differently
    require(off < 2e-2, f"Sparse gradients are {off:.2g} of their size from dense ones.")
    figures: Figures = {"gradient_relative_off": off, "tokens": len(x), "d_in": s.d_in, "d_sae": s.d_sae, "k": s.k}
    for name in ("sparse", "dense"):
        for half in {False, bench.is_gpu}:
            seconds = bench.seconds(partial(_gradient, sae, x, name, half), 3)
            figures[f"{name}_tokens_per_second_{'autocast' if half else 'float32'}"] = len(x) / seconds
        before, peak = bench.peak(partial(_gradient, sae, x, name))
        if before is not None and peak is not None:
            figures[f"{name}_bytes"] = peak - before
    return figures


def _gradient(sae: TopKSAE, x: Tensor, name: str, half: bool = False) -> tuple[Tensor, ...]:
    """Of the squared error over the variance, by encoder, decoder and biases."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
        if name == "sparse":
            loss, _ = sae.loss(x)
        else:
            loss = (x - sae(x)).square().sum() / (x - x.mean(0)).square().sum()
    return torch.autograd.grad(loss, (sae.W_enc, sae.W_dec, sae.b_enc))


def _activations(bench: Bench, n: int) -> Tensor:
    """Sparse sums of directions, with noise: something to learn."""
    s = bench.sizes
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(2 * s.d_in, s.d_in, generator=generator)
    picks = torch.randint(2 * s.d_in, (n, 4), generator=generator)
    x = directions[picks].sum(1) + 0.1 * torch.randn(n, s.d_in, generator=generator)
    return x.to(bench.device)


def training(bench: Bench) -> Figures:
    """Every architecture trains on the device and explains about as much as on the CPU; tokens per second."""
    s, figures = bench.sizes, {}
    x = _activations(bench, s.sae_tokens)
    small = x[: 4 * s.sae_batch, :64].contiguous()  # what the CPU can do as well in a few seconds
    for name in ARCHITECTURES:
        cfg = TrainConfig(s.d_sae, s.k, s.sae_steps, s.sae_batch, architecture=name)
        sae, history = train_sae(x, cfg, progress=False)
        require(sae.W_dec.device.type == bench.device.type, f"The dictionary lies on {sae.W_dec.device}.")
        figures[f"{name}_fve"] = history.fve[-1]
        require(history.fve[-1] > history.fve[0], f"{name} explains no more after {s.sae_steps} steps than before.")
        figures[f"{name}_tokens_per_second"] = s.sae_steps * s.sae_batch / (60 * history.minutes)
        little = replace(cfg, d_sae=min(s.d_sae, 256), k=min(s.k, 8), batch_size=128, steps=12)
        here, there = (train_sae(part, little, progress=False)[0] for part in (small, small.cpu()))
        on_device, on_cpu = quality(here, small), quality(there, small.cpu())
        figures[f"{name}_fve_off"] = off = abs(on_device.fve - on_cpu.fve)
        require(off < 0.05, f"{name} explains {on_device.fve:.2f} here and {on_cpu.fve:.2f} on the CPU.")
    return figures


def splicing(bench: Bench) -> Figures:
    """A dictionary spliced into a model, and its firings, against the CPU."""
    found = {}
    for where in ("cpu", bench.device):
        lm = bench.model("Gemma2", on=str(where))
        cfg = SAEConfig("topk", lm.d_model, 4 * lm.d_model, 8, lm.name, 1, lm.mlp_output(1))
        sae = make_sae(cfg).to(lm.device).requires_grad_(False)
        rows = token_rows(lm, bench.texts, 32, 256)
        loss = spliced_loss(lm, rows.ids, 1, sae)
        firings = sae_firings(sae, bench.normal(64, lm.d_model).cpu())
        found[str(where)] = loss.cpu(), firings.rates()
    (loss, rates), (loss_there, rates_there) = found[str(bench.device)], found["cpu"]
    nats, differing = float((loss - loss_there).abs().max()), float((rates - rates_there).abs().mean())
    require(nats < 5e-2, f"The spliced loss is {nats:.2g} nats from that of the CPU.")
    require(differing < 1e-3, f"Firing rates differ by {differing:.2g} on average.")
    return {"nats_off": nats, "rates_off": differing}


CHECKS = {"sparse steps": sparse_steps, "training": training, "splicing": splicing}
