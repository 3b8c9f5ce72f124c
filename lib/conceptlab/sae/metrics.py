"""How good a dictionary is: reconstruction, sparsity, what the model loses, and whether a direction tells classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..core import Interval
from ..models import LanguageModel
from .base import SAE


def fve(x: Float[Tensor, "n d"], x_hat: Float[Tensor, "n d"]) -> float:
    """Share of variance explained: `1 - sum |x - x_hat|^2 / sum |x - mean(x)|^2`. 1 is perfect, 0 is the mean."""
    return float((1 - (x - x_hat).square().sum() / (x - x.mean(0)).square().sum()).detach())


def fve_by_group(
    x: Float[Tensor, "n d"], x_hat: Float[Tensor, "n d"], groups: Int[Tensor, " n"]
) -> Float[Tensor, " groups"]:
    """One number per group of tokens (texts, rows) whose mean is `fve(x, x_hat)`: what an interval resamples.

    `1 - G * error_g / total`, with `error_g` the squared error of group g, G the number of groups and `total` the
    variance (summed over all tokens).
    """
    _, group = groups.unique(return_inverse=True)
    error = (x - x_hat).square().sum(1)
    n = int(group.max()) + 1
    by_group = torch.zeros(n, dtype=error.dtype, device=error.device).index_add_(0, group.to(error.device), error)
    return 1 - n * by_group / (x - x.mean(0)).square().sum()


DENSE = 0.1  # a feature that fires on a larger share of the tokens than this counts as dense


@dataclass(frozen=True)
class Quality:
    """What a dictionary does to activations it was not trained on."""

    fve: float  # share of variance explained
    mse: float  # squared error per token and dimension, in the activations' own unit
    l0: float  # active features per token
    dead: float  # share of features that fire on none of the tokens
    dense: float  # share of features that fire on more than a tenth of them (`DENSE`)


@torch.no_grad()
def quality(sae: SAE, x: Float[Tensor, "n d_in"], batch_size: int = 4_096) -> Quality:
    """Reconstruction and sparsity on activations `x`. More tokens leave fewer features dead: state how many."""
    fired, error = torch.zeros(sae.cfg.d_sae, dtype=torch.long, device=x.device), 0.0
    for part in x.split(batch_size):
        features = sae.encode(part)
        fired += (features > 0).sum(0)
        error += float((part - sae.decode(features)).square().sum())
    total = float((x - x.mean(0)).square().sum())
    rates = fired / len(x)
    dead, dense = ((rates == 0).float().mean(), (rates > DENSE).float().mean())
    return Quality(1 - error / total, error / x.numel(), float(rates.sum()), float(dead), float(dense))


@torch.no_grad()
def firing_rates(sae: SAE, x: Float[Tensor, "n d_in"], batch_size: int = 4_096) -> Float[Tensor, " d_sae"]:
    """Share of the tokens on which each feature fires: its density."""
    fired = torch.zeros(sae.cfg.d_sae, dtype=torch.long, device=x.device)
    for part in x.split(batch_size):
        fired += (sae.encode(part) > 0).sum(0)
    return (fired / len(x)).cpu()


def nearest(
    rows: Float[Tensor, "n d"], others: Float[Tensor, "m d"] | None = None, chunk: int = 1_024
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Cosine with, and index of, the nearest of `others` for each row (decoder rows of two dictionaries).

    None: the nearest other row of the same matrix. Memory: `chunk` x m cosines at a time.
    """
    target = rows if others is None else others
    target = target / target.norm(dim=1, keepdim=True).clamp_min(1e-12)
    values, indices = [], []
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        near = (part / part.norm(dim=1, keepdim=True).clamp_min(1e-12)) @ target.T
        if others is None:
            own = torch.arange(len(part), device=rows.device)
            near[own, own + start] = -torch.inf
        best = near.max(1)
        values.append(best.values)
        indices.append(best.indices)
    return torch.cat(values), torch.cat(indices)


@torch.no_grad()
def spliced_loss(
    lm: LanguageModel,
    ids: Int[Tensor, "rows n_ctx"],
    layer: int,
    replace: Callable[[Tensor], Tensor] | None,
    batch_size: int = 8,
    kind: str = "mlp_output",
) -> Float[Tensor, " rows"]:
    """Cross-entropy per token (nats), the mean of each row, with the activations of `layer` at `kind` replaced.

    `kind`: a dictionary is spliced in where it reads, `sae_site(sae)[0]`. `replace` maps activations `[n, d_model]` to
    the same shape; None leaves the model alone. Position 0 is never replaced, and the prediction made there is not
    counted.
    """

    def hook(activation: Tensor) -> Tensor:
        new = activation.clone()
        body = new[:, 1:]
        assert replace is not None  # else there is no hook
        new[:, 1:] = replace(body.reshape(-1, body.shape[-1])).view_as(body).to(new.dtype)
        return new

    losses = []
    for part in ids.split(batch_size):
        with lm.intervene({} if replace is None else {(kind, layer): hook}):
            logits = lm.logits(part)[:, 1:-1]
        loss = F.cross_entropy(logits.transpose(1, 2), part[:, 2:].to(logits.device), reduction="none")
        losses.append(loss.mean(1).cpu())
    return torch.cat(losses)


def loss_recovered(clean: Tensor, spliced: Tensor, zero: Tensor, n_resamples: int = 2_000, seed: int = 0) -> Interval:
    """`(zero - spliced) / (zero - clean)` of mean losses, with an interval over rows (resampled together).

    1: the model predicts as well as with the true activations; 0: as badly as with zeros there.
    """
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(clean), (n_resamples, len(clean)), generator=generator)
    c, s, z = (x.double()[picks].mean(1) for x in (clean, spliced, zero))
    low, high = torch.quantile((z - s) / (z - c), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    value = float((zero.double().mean() - spliced.double().mean()) / (zero.double().mean() - clean.double().mean()))
    return Interval(value, low, high, len(clean))


@torch.no_grad()
def length_ratio(sae: SAE, x: Float[Tensor, "n d_in"]) -> float:
    """How long reconstructions are: `sum |y|^2 / sum x y` with x and y around their means, 1 where nothing shrinks.

    Below 1, multiplying the reconstructions by a number above 1 would make them better: they are too short. (Gated
    paper, arXiv 2404.16014, section on shrinkage; there x and y are not centred.)
    """
    y = sae(x)
    x, y = x - x.mean(0), y - y.mean(0)
    return float(y.square().sum() / (x * y).sum())


def agreement(values: Float[Tensor, "n units"], labels: Int[Tensor, " n"], top: int = 10) -> Float[Tensor, " units"]:
    """For each unit: share of pairs among its `top` strongest tokens that carry the same label (token, topic)."""
    strongest = labels[values.topk(top, dim=0).indices.cpu()]  # [top, units]
    return ((strongest[:, None] == strongest[None]).sum((0, 1)) - top) / (top * (top - 1))
