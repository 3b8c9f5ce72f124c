"""LoRA (Hu et al., arXiv 2106.09685): low-rank changes of linear layers, trained beside weights that stay put."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..core import ConceptLabError
from ..models import LanguageModel
from .weight_edit import LowRank, WeightEdit


@dataclass(frozen=True)
class Adapter:
    """The trained change `scale * B A` of one weight `[out, in]`; `A [rank, in]`, `B [out, rank]`."""

    A: nn.Parameter
    B: nn.Parameter
    scale: float

    def __call__(self, x: Tensor) -> Tensor:
        return self.scale * (x @ self.A.T @ self.B.T)


@contextmanager
def lora(
    lm: LanguageModel, names: Sequence[str], rank: int, alpha: float = 16.0, seed: int = 0
) -> Iterator[dict[str, Adapter]]:
    """Inside the block each linear layer of `names` (weights as in `lm.parameters()`) has an adapter.

    B starts at zero, so the model answers as before until something is trained; A is uniform with variance 1 / (3 in),
    as in the reference implementation. The weights themselves are never written. Raises for names without a linear
    layer and for a rank below 1.
    """
    if rank < 1:
        raise ConceptLabError(f"LoRA needs a rank of at least 1; got {rank}.")
    modules = {name: lm.linear(name) for name in names if name.endswith(".weight")}
    modules = {name: module for name, module in modules.items() if isinstance(module, nn.Linear)}
    if not modules:
        raise ConceptLabError("LoRA changes linear layers and none was chosen; choose weights such as 'mlp'.")
    generator = torch.Generator().manual_seed(seed)
    adapters, handles = {}, []
    for name, module in modules.items():
        bound = module.in_features**-0.5
        A = (2 * torch.rand(rank, module.in_features, generator=generator) - 1) * bound
        B = torch.zeros(module.out_features, rank)
        adapters[name] = Adapter(*(nn.Parameter(x.to(module.weight)) for x in (A, B)), alpha / rank)
    try:
        for name, module in modules.items():
            add = adapters[name]
            handles.append(module.register_forward_hook(lambda _module, args, out, add=add: out + add(args[0])))
        yield adapters
    finally:
        for handle in handles:
            handle.remove()


def merged(lm: LanguageModel, adapters: dict[str, Adapter]) -> WeightEdit:
    """The same change as an edit of the weights."""
    changes = {n: LowRank((a.scale * a.B).detach().clone(), a.A.detach().clone()) for n, a in adapters.items()}
    return WeightEdit(lm.name, changes, {"method": "lora"})
