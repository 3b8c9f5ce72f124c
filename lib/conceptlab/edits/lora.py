"""LoRA (Hu et al., arXiv 2106.09685): low-rank changes of linear layers, trained beside weights that stay put."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..core import ConceptLabError
from ..models import Change, LanguageModel
from .kinds import LowRank
from .weight_edit import WeightEdit


@dataclass(frozen=True)
class Adapter:
    """The trained change `scale * (B A - B0 A0)` of one weight `[out, in]`; `A [rank, in]`, `B [out, rank]`."""

    A: nn.Parameter  # float32 in a model of half precision
    B: nn.Parameter
    scale: float
    start: tuple[Tensor, Tensor] | None = None  # A0 and B0, where the training did not start at B = 0

    def __call__(self, x: Tensor) -> Tensor:
        x, dtype = x.to(self.A.dtype), x.dtype
        change = x @ self.A.T @ self.B.T
        if self.start is not None:
            change = change - x @ self.start[0].T @ self.start[1].T
        return (self.scale * change).to(dtype)


Starts = Mapping[str, tuple[Tensor, Tensor]]  # name of a weight -> A and B to start from


def lora(
    lm: LanguageModel,
    names: Sequence[str],
    rank: int,
    alpha: float = 16.0,
    seed: int = 0,
    starts: Starts | None = None,
) -> Change:
    """Inside the block each linear layer of `names` (as in `lm.parameters()`) has an adapter; gives them by name.

    B starts at zero, so the model answers as before until something is trained; A is uniform with variance 1 / (3 in),
    as in the reference implementation. `starts` gives the weights that it names another A and B to start from, and
    takes their product off again, so that there, too, nothing is changed before the first step. Adapters are kept and
    multiplied in float32 or better, and what they add is rounded to the model's dtype. The weights themselves are never
    written. Raises for names without a linear layer and for a rank below 1.
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
        given = None if starts is None else starts.get(name)
        weight = module.weight
        wide = torch.promote_types(weight.dtype, torch.float32)
        A, B = (x.detach().to(weight.device, wide) for x in given or (A, B))
        start = None if given is None else (A.clone(), B.clone())
        adapters[name] = Adapter(nn.Parameter(A.clone()), nn.Parameter(B.clone()), alpha / rank, start)

    def begin(change: Change) -> dict[str, Adapter]:
        for name, module in modules.items():
            add = adapters[name]
            change.then(module.register_forward_hook(lambda _module, args, out, add=add: out + add(args[0])).remove)
        return adapters

    return Change(lm, "LoRA", begin, weights=False)


def merged(lm: LanguageModel, adapters: Mapping[str, Adapter], info: dict | None = None) -> WeightEdit:
    """The same change as an edit of the weights."""
    return WeightEdit.of(lm, {name: _change(a) for name, a in adapters.items()}, {"method": "lora"} | (info or {}))


def _change(a: Adapter) -> LowRank:
    if a.start is None:
        return LowRank((a.scale * a.B).detach().clone(), a.A.detach().clone())
    A, B = a.start
    return LowRank(torch.cat([a.scale * a.B.detach(), -a.scale * B], 1), torch.cat([a.A.detach(), A]))
