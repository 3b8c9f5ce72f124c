"""Training of weights in place, undone to the bit afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from ..core import ConceptLabError
from ..models import LanguageModel

PARTS = {"down_proj": "mlp.down_proj.", "mlp": "mlp.", "attention": "self_attn.", "block": ""}


@contextmanager
def trainable(lm: LanguageModel, chosen: dict[str, torch.nn.Parameter]) -> Iterator[LanguageModel]:
    """Inside the block only `chosen` ask for gradients; afterwards every weight is bit-identical to before."""
    before = {name: (p.detach().clone(), p.requires_grad) for name, p in chosen.items()}
    asked = [p for p in lm.parameters().values() if p.requires_grad]
    try:
        for p in asked:
            p.requires_grad_(False)
        for p in chosen.values():
            p.requires_grad_(True)
        yield lm
    finally:
        with torch.no_grad():
            for name, p in chosen.items():
                p.copy_(before[name][0])
                p.requires_grad_(before[name][1])
                p.grad = None
        for p in asked:
            p.requires_grad_(True)


def trained_parameters(
    lm: LanguageModel, weights: str = "mlp", layers: Sequence[int] | None = None
) -> dict[str, torch.nn.Parameter]:
    """Parameters that an attack trains, by name: one of the parts of each of `layers`, or "all" of the model."""
    if weights != "all" and weights not in PARTS:
        raise ConceptLabError(f"Unknown weights {weights!r}; an attack trains one of {', '.join((*PARTS, 'all'))}.")
    named = lm.parameters()
    if weights == "all":
        if layers is not None:
            raise ConceptLabError('weights="all" trains the whole model; for some layers only, use weights="block".')
        return named
    found = {}
    for layer in range(lm.n_layers) if layers is None else layers:
        prefix = lm.down_proj_name(layer).removesuffix("mlp.down_proj.weight") + PARTS[weights]
        found |= {name: p for name, p in named.items() if name.startswith(prefix)}
    if not found:
        raise ConceptLabError("No layer was chosen to train; give at least one, or layers=None for every layer.")
    return found
