"""LoRA (Hu et al., arXiv 2106.09685): low-rank changes of linear layers, trained beside weights that stay put."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..core import ConceptLabError
from ..models import Change, LanguageModel
from .kinds import LowRank
from .weight_edit import WeightEdit


@dataclass(frozen=True)
class Adapter:
    """The trained change `scale * B A` of one weight `[out, in]`; `A [rank, in]`, `B [out, rank]`."""

    A: nn.Parameter  # float32 in a model of half precision
    B: nn.Parameter
    scale: float

    def __call__(self, x: Tensor) -> Tensor:
        return (self.scale * (x.to(self.A.dtype) @ self.A.T @ self.B.T)).to(x.dtype)


def lora(lm: LanguageModel, names: Sequence[str], rank: int, alpha: float = 16.0, seed: int = 0) -> Change:
    """Inside the block each linear layer of `names` (as in `lm.parameters()`) has an adapter; gives them by name.

    B starts at zero, so the model answers as before until something is trained; A is uniform with variance 1 / (3 in),
    as in the reference implementation. Adapters are kept and multiplied in float32 or better, and what they add is
    rounded to the model's dtype. The weights themselves are never written. Raises for names without a linear layer and
    for a rank below 1.
    """
    if rank < 1:
        raise ConceptLabError(f"LoRA needs a rank of at least 1; got {rank}.")
    found = {name: lm.linear(name) for name in names if name.endswith(".weight")}
    modules = {name: module for name, module in found.items() if isinstance(module, nn.Linear)}
    if not modules:
        raise ConceptLabError("LoRA changes linear layers and none was chosen; choose weights such as 'mlp'.")
    generator = torch.Generator().manual_seed(seed)
    adapters = {}
    for name, module in modules.items():
        bound = module.in_features**-0.5
        A = (2 * torch.rand(rank, module.in_features, generator=generator) - 1) * bound
        B = torch.zeros(module.out_features, rank)
        weight = module.weight
        A, B = (x.to(weight.device, torch.promote_types(weight.dtype, torch.float32)) for x in (A, B))
        adapters[name] = Adapter(nn.Parameter(A), nn.Parameter(B), alpha / rank)

    def begin(change: Change) -> dict[str, Adapter]:
        for name, module in modules.items():
            add = adapters[name]
            change.then(module.register_forward_hook(lambda _module, args, out, add=add: out + add(args[0])).remove)
        return adapters

    return Change(lm, "LoRA", begin, weights=False)


def merged(lm: LanguageModel, adapters: dict[str, Adapter]) -> WeightEdit:
    """The same change as an edit of the weights."""
    changes = {n: LowRank((a.scale * a.B).detach().clone(), a.A.detach().clone()) for n, a in adapters.items()}
    return WeightEdit.of(lm, changes, {"method": "lora"})
