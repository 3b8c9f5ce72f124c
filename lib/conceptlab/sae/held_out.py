"""What a card says of a dictionary: quality on text that no dictionary was trained on, and what storage costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import largest
from ..data import TokenRows, harvest
from ..models import LanguageModel
from .base import SAE
from .batchtopk import BatchTopKSAE
from .metrics import loss_recovered, quality, spliced_loss
from .sites import check_fits, check_harvest, sae_site
from .topk import TopKSAE

KS = (16, 32, 64, 128)  # active features per token at which a card reports the share of variance explained


class HeldOut:
    """Activations and losses on text that no dictionary was trained on; what every layer needs is computed once."""

    def __init__(
        self, lm: LanguageModel, rows: TokenRows, layers: Sequence[int], loss_rows: int = 64, progress: bool = True
    ):
        self.lm, self.ids = lm, rows.ids[:loss_rows]
        self.data = harvest(lm, rows, layers, progress=progress)
        self.clean = spliced_loss(lm, self.ids, layers[0], None)
        self.zero: dict[int, Tensor] = {}
        self.spliced: dict[int, Tensor] = {}

    def measure(self, sae: SAE) -> dict:
        """What a card says: all numbers of the dictionary as it is read from the disk."""
        layer = sae.cfg.hook_layer
        check_fits(self.lm, sae)
        check_harvest(self.data, sae)
        x = self._activations(layer)
        found = quality(sae, x)
        self.zero[layer] = spliced_loss(self.lm, self.ids, layer, torch.zeros_like, kind=self.data.kind)
        self.spliced[layer] = self._splice(sae)
        kept = loss_recovered(self.clean, self.spliced[layer], self.zero[layer])
        at_k = {str(k): round(v, 4) for k, v in fve_at(sae, x, KS).items()} if isinstance(sae, TopKSAE) else {}
        return {
            "tokens": len(x),
            "fve": round(found.fve, 4),
            "fve_at_k": at_k,
            "l0": round(found.l0, 2),
            "dead_share": round(found.dead, 4),
            "ce_recovered": {name: round(getattr(kept, name), 4) for name in ("value", "low", "high")},
            "ce_tokens": self.ids[:, 2:].numel(),
            "ce_nats": {
                "model": round(float(self.clean.mean()), 4),
                "dictionary": round(float(self.spliced[layer].mean()), 4),
                "zeros": round(float(self.zero[layer].mean()), 4),
            },
        }

    def lost(self, sae: SAE, stored: SAE) -> dict:
        """What the small storage costs, in share of variance and of cross-entropy recovered. After `measure`."""
        layer = sae.cfg.hook_layer
        x = self._activations(layer)
        fve = quality(sae, x).fve - quality(stored, x).fve
        gap = (self.zero[layer] - self.clean).double().mean()
        ce = float((self.spliced[layer] - self._splice(sae)).double().mean() / gap)
        return {"fve": round(fve, 5), "ce_recovered": round(ce, 5)}

    def _activations(self, layer: int) -> Float[Tensor, "tokens d_in"]:
        return self.data.tensor(layer).to(self.lm.device)

    def _splice(self, sae: SAE) -> Float[Tensor, " rows"]:
        return spliced_loss(self.lm, self.ids, sae.cfg.hook_layer, lambda a: sae(a.float()), kind=sae_site(sae)[0])


@torch.no_grad()
def fve_at(sae: TopKSAE, x: Float[Tensor, "n d_in"], ks: Iterable[int], batch_size: int = 4_096) -> dict[int, float]:
    """Share of variance explained with other numbers of active features than it was trained with, in one pass.

    BatchTopK: k on average, by the threshold that gives so many on the first `batch_size` rows.
    """
    ks = [k for k in ks if k <= sae.cfg.d_sae]
    error, cuts = dict.fromkeys(ks, 0.0), dict[int, Tensor]()
    for part in x.split(batch_size):
        scores = sae.pre_activations(part)
        if not cuts and isinstance(sae, BatchTopKSAE):
            cuts = {k: largest(scores.view(1, -1), k * len(part))[0].min() for k in ks}
        values, indices = (scores, scores) if cuts else scores.topk(max(ks), dim=-1)
        for k in ks:
            if cuts:
                x_hat = sae.decode(scores * (scores >= cuts[k]))
            else:
                x_hat = sae.decode_sparse(values[:, :k].contiguous(), indices[:, :k].contiguous())
            error[k] += float((part - x_hat).square().sum())
    total = float((x - x.mean(0)).square().sum())
    return {k: 1 - error[k] / total for k in ks}
