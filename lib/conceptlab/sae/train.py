"""Train a dictionary of any architecture on activations."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ..core import ConceptLabError
from ..data import Harvest, shuffled_batches
from ..models import LanguageModel, optimiser_memory, require_training_memory
from .architectures import make_sae
from .base import SAE, SAEConfig
from .checkpoint import check_folder, load_checkpoint, save_checkpoint, sole_writer
from .distributed import SOLO, World
from .sites import hook_at
from .train_config import TrainConfig, check_config
from .training_data import Source


@dataclass
class History:
    """One entry per logged step (every tenth and the last), measured on the training batch."""

    step: list[int] = field(default_factory=list)
    fve: list[float] = field(default_factory=list)  # share of variance explained
    dead: list[float] = field(default_factory=list)  # share of features that have not fired for `dead_after` tokens
    loss: list[float] = field(default_factory=list)  # what is minimised
    l0: list[float] = field(default_factory=list)  # active features per token
    minutes: float = field(default=0.0, compare=False)  # in all parts of a run that was interrupted


def train_sae(
    data: Harvest | Float[Tensor, "tokens d_in"],
    cfg: TrainConfig | None = None,
    lm: LanguageModel | None = None,
    layer: int | None = None,
    progress: bool = True,
    checkpoint: Path | None = None,
    world: World = SOLO,
) -> tuple[SAE, History]:
    """Train on `data`; the returned dictionary reads raw activations (the training scale is folded in).

    `data`: a harvest, of which `layer` is taken, or plain activations. `lm`: whose activations they are (name and
    device). `checkpoint`: a folder in which training leaves its state and from which it goes on, to the same bits; it
    stays there afterwards. `world`: the processes that train together. On CUDA the large products run in bfloat16.

    Before the first step settings, folder and data are checked. Raises ConceptLabError for those that do not fit (also
    NaN, infinite and equal activations), a device without the memory for them, a checkpoint of another run or data or
    one that another process writes, and a loss that is not finite. Warns of a single token that holds much of the
    variance.
    """
    cfg, source = check_config(cfg or TrainConfig()), Source(data, layer)
    if checkpoint is not None:
        check_folder(checkpoint)
    _require_memory(cfg, source.width, lm.device if lm is not None else source.device, world)
    source.check()
    with sole_writer(checkpoint if world.rank == 0 else None):
        return _train(source, cfg, lm, layer, progress, checkpoint, world)


def _train(
    source: Source,
    cfg: TrainConfig,
    lm: LanguageModel | None,
    layer: int | None,
    progress: bool,
    checkpoint: Path | None,
    world: World,
) -> tuple[SAE, History]:
    device = lm.device if lm is not None else source.device
    names = (getattr(lm, "name", ""), layer or 0, _hook(source, lm, layer))
    sae = make_sae(SAEConfig(cfg.architecture, source.width, cfg.d_sae, cfg.k, *names), cfg.seed).to(device)
    sae.unit_norm = not cfg.decoder_norm_penalty
    sae.W_dec.requires_grad_(not cfg.freeze_decoder)
    sample = source.take(next(shuffled_batches(len(source), max(8_192, cfg.d_sae), cfg.seed))).to(device)
    scale = float(sample.square().mean().sqrt())  # activations are divided by it during training
    _start_from_data(sae, sample / scale, cfg)
    run = _Run(sae, cfg, world, scale, source.fingerprint() if checkpoint is not None else "")
    done = run.resume(checkpoint) if checkpoint is not None else 0
    hidden = not progress or world.rank > 0
    start = time.monotonic() - 60 * run.history.minutes
    bar = tqdm(total=cfg.steps, initial=done, unit="step", disable=hidden, desc=_title(cfg, layer), mininterval=2)
    for step, picks in enumerate(shuffled_batches(len(source), cfg.batch_size, cfg.seed, cfg.steps)):
        if step < done:
            continue
        run.update(step, source.take(world.share(picks)).to(device) / scale)
        if step % 10 == 0 or step == cfg.steps - 1:
            bar.set_postfix(run.log(step), refresh=False)
        bar.update()
        run.history.minutes = (time.monotonic() - start) / 60
        if checkpoint is not None and ((step + 1) % cfg.checkpoint_every == 0 or step == cfg.steps - 1):
            run.save(checkpoint, step + 1)
    bar.close()
    sae.finish()
    sae.scale_inputs(scale)
    return sae.requires_grad_(False), run.history


def _require_memory(cfg: TrainConfig, d_in: int, device: torch.device, world: World) -> None:
    """What a dictionary takes in training: two matrices and vectors, and the features of its part of a batch."""
    n_weights = 2 * d_in * cfg.d_sae + 4 * cfg.d_sae + d_in
    n_tokens, n_sample = -(-cfg.batch_size // world.size), max(8_192, cfg.d_sae)
    batch = n_tokens * (3 * cfg.d_sae + 4 * d_in) * 4  # scores, features and their gradients; the TopK of them is less
    sample = 2 * n_sample * d_in * 4
    parts = {"of weights": 4 * n_weights, **optimiser_memory(n_weights, torch.float32)}
    parts |= {f"for {n_tokens} tokens": batch, "for the tokens it starts from": sample}
    require_training_memory(f"A dictionary of {cfg.d_sae:,} features", parts, device)


def _hook(source: Source, lm: LanguageModel | None, layer: int | None) -> str:
    """The place that the activations are of: a harvest says it, plain ones of a model's layer are MLP outputs."""
    if lm is None or layer is None:
        return ""
    return hook_at(source.harvest.kind if source.harvest else "mlp_output", lm.check_layer(layer))


def _title(cfg: TrainConfig, layer: int | None) -> str:
    return f"{cfg.architecture} SAE" + ("" if layer is None else f" layer {layer}")


class _Run:
    """A dictionary in training: weights, optimiser, how long each feature has been silent, and the curves."""

    def __init__(self, sae: SAE, cfg: TrainConfig, world: World, scale: float, data: str):
        self.sae, self.cfg, self.world, self.scale, self.data = sae, cfg, world, scale, data
        assert cfg.lr is not None and cfg.sparsity is not None  # `check_config` has filled them in
        self.lr, self.sparsity = cfg.lr, cfg.sparsity
        trained = [(name, p) for name, p in sae.named_parameters() if p.requires_grad]
        groups = [{"params": [p], "factor": sae.lr_factors.get(name, 1.0)} for name, p in trained]
        self.optimiser = torch.optim.Adam(groups, lr=self.lr, betas=(0.9, 0.999), fused=True)
        self.idle = torch.zeros(cfg.d_sae, dtype=torch.long, device=sae.W_dec.device)
        self.history = History()
        self.restarts = {int(share * cfg.steps) for share in cfg.resample_at} if cfg.resamples else set()

    def update(self, step: int, x: Float[Tensor, "batch d_in"]) -> None:
        """One optimisation step on this process's part of the batch."""
        sae, cfg, dead = self.sae, self.cfg, self.idle > self.cfg.dead_after
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr * _schedule(step, cfg) * group["factor"]
        sparsity = self.sparsity * min(1.0, (step + 1) / max(1.0, cfg.sparsity_warmup * cfg.steps))
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.device.type == "cuda"):
            loss, self.info = sae.loss(x, dead, sparsity, self.world)
        self.loss = loss.detach()
        self.optimiser.zero_grad()
        loss.backward()
        self.world.average_gradients(sae)
        normed = sae.unit_norm and not cfg.freeze_decoder
        if normed:
            sae.remove_parallel_gradient()
        self.optimiser.step()
        if normed:
            sae.normalise_decoder()
        self.idle += len(x) * self.world.size
        self.idle[self.world.any(self.info["fired"])] = 0
        if step + 1 in self.restarts:
            self.restart(step, x)

    @torch.no_grad()
    def restart(self, step: int, x: Float[Tensor, "batch d_in"]) -> None:
        """Point dead features at the errors of badly reconstructed tokens, forget their momentum (Bricken et al. 2023).

        Tokens are drawn with a chance in proportion to their squared loss. There the new row is the token itself; its
        error has less of what living features already say.
        """
        dead = self.idle > self.cfg.dead_after
        if not bool(dead.any()):
            return
        x = self.world.gather(x)
        error = x - self.sae(x)
        chance = error.square().sum(1).square().double().cpu() + 1e-12
        n, generator = int(dead.sum()), torch.Generator().manual_seed(self.cfg.seed + step)
        picks = torch.multinomial(chance, n, replacement=n > len(x), generator=generator).to(x.device)
        self.sae.restart_features(dead, F.normalize(error[picks], dim=1))
        for name, p in self.sae.named_parameters():
            for moment in ("exp_avg", "exp_avg_sq"):
                if name == "W_enc":
                    self.optimiser.state[p][moment][:, dead] = 0
                elif name != "b_dec":
                    self.optimiser.state[p][moment][dead] = 0
        self.idle[dead] = 0

    def log(self, step: int) -> dict[str, str]:
        """Add an entry to the curves and give it as text."""
        h, dead = self.history, self.idle > self.cfg.dead_after
        entry = {
            "loss": float(self.world.mean(self.loss)),
            "fve": float(self.info["fve"]),
            "l0": float(self.info["l0"]),
            "dead": float(dead.float().mean()),
        }
        if not np.isfinite(entry["loss"]):
            raise ConceptLabError(
                f"The loss is not finite at step {step}; lower the learning rate ({self.cfg.lr}) "
                "or look for infinite activations."
            )
        h.step.append(step)
        for name, value in entry.items():
            getattr(h, name).append(value)
        return {name: f"{value:.1f}" if name == "l0" else f"{value:.3f}" for name, value in entry.items()}

    def save(self, folder: Path, done: int) -> None:
        """Leave all that the next step depends on in `folder` (process 0 does, the others hold the same)."""
        if self.world.rank == 0:
            facts = {"done": done, "run": self._identity(), "history": asdict(self.history)}
            save_checkpoint(folder, self.sae, self.optimiser, self.idle, facts)

    def resume(self, folder: Path) -> int:
        """Take up the state in `folder`; returns the number of steps done, 0 where there is none."""
        facts = load_checkpoint(folder, self.sae, self.optimiser, self.idle, self._identity())
        if facts is None:
            return 0
        self.history = History(**facts["history"])
        return facts["done"]

    def _identity(self) -> dict:
        settings = asdict(self.cfg) | {"resample_at": list(self.cfg.resample_at)}
        del settings["checkpoint_every"]
        return {**settings, **asdict(self.sae.cfg), "data": self.data}


@torch.no_grad()
def _start_from_data(sae: SAE, sample: Tensor, cfg: TrainConfig) -> None:
    """Begin with activations as decoder rows: 100 steps from there go further than 300 from random rows.

    A frozen decoder stays random, unit rows drawn by the seed.
    """
    sae.b_dec.copy_(sample.mean(0) if cfg.bias_init == "mean" else geometric_median(sample))
    if not cfg.freeze_decoder:
        _rows_from_data(sae, sample, cfg)
    assert cfg.encoder_scale is not None  # `check_config` has filled it in
    sae.W_enc.copy_(cfg.encoder_scale * sae.W_dec.T)
    sae.start(sample)


@torch.no_grad()
def _rows_from_data(sae: SAE, sample: Tensor, cfg: TrainConfig) -> None:
    generator = torch.Generator().manual_seed(cfg.seed)
    picks = torch.randperm(len(sample), generator=generator)[: cfg.d_sae].to(sample.device)
    rows = sample[picks] - sae.b_dec
    noise = 1e-3 * torch.randn(cfg.d_sae, sample.shape[1], generator=generator)  # no two rows are the same
    if len(rows) < cfg.d_sae:  # fewer tokens than features: the rest stays random
        rows = torch.cat([rows, sae.W_dec[len(rows) :] * rows.norm(dim=1).mean()])
    sae.W_dec.copy_(rows + noise.to(rows.device))
    sae.normalise_decoder()


def geometric_median(x: Float[Tensor, "n d"], steps: int = 50) -> Float[Tensor, " d"]:
    """The point with the smallest sum of distances to the rows of `x`: outliers pull it less than the mean."""
    centre = x.mean(0)
    for _ in range(steps):  # Weiszfeld's iteration
        weight = 1 / (x - centre).norm(dim=1).clamp_min(1e-8)
        centre = (weight @ x) / weight.sum()
    return centre


def _schedule(step: int, cfg: TrainConfig) -> float:
    warm = max(1, int(cfg.warmup * cfg.steps))
    return min((step + 1) / warm, (cfg.steps - step) / max(1, cfg.steps - warm), 1.0)
