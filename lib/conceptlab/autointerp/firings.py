"""Where units fire: SAE features, neurons and random directions, kept sparse and chosen by a stated rule.

A *unit* is anything with one activation per token. All kinds of units pass through the same `Firings`, so that
explainers and scorers cannot tell a feature from its control.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from ..core import ConceptLabError, atomic_path, cache_dir
from ..data import Harvest
from ..models import LanguageModel
from ..sae import SAE, make_sae


@dataclass(frozen=True)
class Firings:
    """Non-zero activations of `n` units over the kept tokens of a harvest, unit by unit."""

    token: Int[Tensor, " nnz"]  # index of the kept token, ascending within a unit
    value: Float[Tensor, " nnz"]  # activation there, positive
    offsets: Int[Tensor, " n_plus_1"]  # unit j owns entries offsets[j] to offsets[j + 1]
    n_tokens: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, unit: int) -> tuple[Int[Tensor, " firings"], Float[Tensor, " firings"]]:
        """Token indices and activations of one unit."""
        if not 0 <= unit < len(self):
            raise ConceptLabError(f"There are units 0 to {len(self) - 1}; unit {unit} does not exist.")
        part = slice(int(self.offsets[unit]), int(self.offsets[unit + 1]))
        return self.token[part], self.value[part]

    def dense(self, unit: int) -> Float[Tensor, " tokens"]:
        """The activation of one unit at every kept token."""
        column = torch.zeros(self.n_tokens)
        token, value = self.of(unit)
        column[token] = value
        return column

    def counts(self, where: Bool[Tensor, " tokens"] | None = None) -> Int[Tensor, " n"]:
        """How often each unit fires, everywhere or among the tokens of a mask."""
        if where is None:
            return self.offsets.diff()
        hits = where[self.token].long()
        sums = torch.cat([torch.zeros(1, dtype=torch.long), hits.cumsum(0)])
        return sums[self.offsets[1:]] - sums[self.offsets[:-1]]

    def strong(self, unit: int, share: float) -> tuple[Int[Tensor, " strong"], Float[Tensor, " strong"]]:
        """The strongest `share` of a unit's firings (at least one), tokens ascending."""
        token, value = self.of(unit)
        keep = value.topk(min(len(value), max(1, round(share * len(value))))).indices.sort().values
        return token[keep], value[keep]

    def rates(self) -> Float[Tensor, " n"]:
        """Share of tokens on which each unit fires."""
        return self.counts() / self.n_tokens


def _firings(token: Tensor, unit: Tensor, value: Tensor, n_units: int, n_tokens: int) -> Firings:
    order = unit.argsort(stable=True)  # tokens stay ascending within a unit
    ends = torch.bincount(unit, minlength=n_units).cumsum(0)
    return Firings(token[order], value[order], torch.cat([torch.zeros(1, dtype=torch.long), ends]), n_tokens)


@torch.no_grad()
def sae_firings(sae: SAE, x: Float[Tensor, "tokens d_in"], chunk: int = 4_096) -> Firings:
    """Firings of all features of a dictionary on activations `x`. Memory: one chunk of dense features at a time."""
    tokens, units, values = [], [], []
    for i in range(0, len(x), chunk):
        features = sae.encode(x[i : i + chunk].to(sae.W_dec.device)).cpu()
        token, unit = features.nonzero(as_tuple=True)
        tokens.append(token + i)
        units.append(unit)
        values.append(features[token, unit])
    return _firings(torch.cat(tokens), torch.cat(units), torch.cat(values), sae.cfg.d_sae, len(x))


def dense_firings(x: Float[Tensor, "tokens n"], rates: Float[Tensor, " n"]) -> Firings:
    """Firings of units that are never quite silent: column j counts as firing on its `rates[j]` largest values.

    The threshold is subtracted, and never below 0: so a neuron gets as many firings as the feature it is compared with.
    """
    n = (rates * len(x)).round().long().clamp(1, len(x) - 1)
    ordered = x.sort(dim=0, descending=True).values
    threshold = ordered.gather(0, n[None]).squeeze(0).clamp_min(0)  # the largest value that does not fire
    token, unit = (x > threshold).nonzero(as_tuple=True)
    return _firings(token, unit, (x - threshold)[token, unit], x.shape[1], len(x))


@torch.no_grad()
def random_dictionary(sae: SAE, x: Float[Tensor, "tokens d_in"], seed: int = 0) -> SAE:
    """An untrained TopK dictionary of equal shape: random directions around the mean of the activations.

    TopK whatever the trained one is: thresholds have to be trained. It lets as many features fire per token.
    """
    l0 = float((sae.encode(x[:2_048].to(sae.W_dec.device)) > 0).sum(1).float().mean())
    cfg = replace(sae.cfg, architecture="topk", k=min(sae.cfg.d_sae, max(1, round(l0))))
    control = make_sae(cfg, seed).to(sae.W_dec.device).requires_grad_(False)
    control.b_dec.copy_(x.mean(0))
    return control


def often_enough(firings: Firings, halves: Sequence[Tensor], least: int = 80) -> Int[Tensor, " units"]:
    """Units that fire at least `least` times in each half."""
    return torch.stack([firings.counts(half) >= least for half in halves]).all(0).nonzero().squeeze(1)


def sample_by_rate(
    firings: Firings, halves: Sequence[Tensor], n: int, bands: int = 4, least: int = 80, seed: int = 0
) -> list[int]:
    """`n` units by a stated rule: those that fire at least `least` times in each half, cut at the quantiles of their
    firing rate into `bands`, and an equal seeded sample from each band. Rarest first.

    Raises ConceptLabError when fewer than `n` units fire often enough.
    """
    enough = often_enough(firings, halves, least)
    if len(enough) < n:
        raise ConceptLabError(
            f"Only {len(enough)} units fire {least} times in each half, {n} were asked for; "
            "harvest more tokens or lower `least`."
        )
    rates, generator = firings.rates(), torch.Generator().manual_seed(seed)
    ordered = enough[rates[enough].argsort(stable=True)]
    chosen = []
    for i, band in enumerate(ordered.tensor_split(bands)):
        size = n // bands + (i < n % bands)
        chosen.append(band[torch.randperm(len(band), generator=generator)[:size].sort().values])
    return torch.cat(chosen).tolist()


def neuron_values(
    lm: LanguageModel, harvest: Harvest, layer: int, neurons: Sequence[int], batch_size: int = 16, progress: bool = True
) -> Float[Tensor, "tokens n"]:
    """Activations of a few MLP neurons at the kept tokens of a harvest; kept in the cache (one forward pass)."""
    keep_neurons(lm, harvest, {layer: neurons}, batch_size, progress)
    return load_file(_neuron_file(lm, harvest, layer, neurons))["values"]


@torch.no_grad()
def keep_neurons(
    lm: LanguageModel,
    harvest: Harvest,
    neurons: Mapping[int, Sequence[int]],
    batch_size: int = 16,
    progress: bool = True,
) -> None:
    """Fill the cache that `neuron_values` reads, for several layers (layer -> neurons) in one forward pass."""
    files = {layer: _neuron_file(lm, harvest, layer, chosen) for layer, chosen in neurons.items()}
    layers = [layer for layer, path in files.items() if not path.exists()]
    if not layers:
        return
    parts: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    bar = tqdm(total=harvest.rows.n_tokens, unit="tok", disable=not progress, desc=f"neurons of layers {layers}")
    for _, ids in harvest.rows.batches(batch_size):
        found = lm.capture(ids, [("neurons", layer) for layer in layers])
        for layer in layers:
            parts[layer].append(found["neurons", layer][..., list(neurons[layer])].float().cpu())
        bar.update(ids.numel())
    bar.close()
    for layer in layers:
        values = torch.cat(parts[layer])[torch.from_numpy(harvest.row), torch.from_numpy(harvest.pos)]
        with atomic_path(files[layer]) as temporary:
            save_file({"values": values.contiguous()}, temporary)


def _neuron_file(lm: LanguageModel, harvest: Harvest, layer: int, neurons: Sequence[int]) -> Path:
    digest = hashlib.sha256(harvest.rows.ids.numpy().tobytes()).hexdigest()
    key = f"{lm.name} {digest} neurons {layer} {list(neurons)}"
    return cache_dir() / "neurons" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
