"""Training of weights in place, undone to the bit afterwards; in half precision on float32 master copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..core import ConceptLabError
from ..models import Change, LanguageModel

PARTS = {"down_proj": "mlp.down_proj.", "mlp": "mlp.", "attention": "self_attn.", "block": ""}


def trainable(lm: LanguageModel, chosen: dict[str, nn.Parameter]) -> Change:
    """Inside the block only `chosen` ask for gradients; afterwards every weight is bit-identical to before."""

    def begin(change: Change) -> None:
        for p in lm.parameters().values():
            if p.requires_grad and all(p is not other for other in chosen.values()):
                change.then(lambda p=p: p.requires_grad_(True))
                p.requires_grad_(False)
        for p in chosen.values():
            change.keep(p)
            change.then(lambda p=p, asked=p.requires_grad: _put_away(p, asked))
            p.requires_grad_(True)

    return Change(lm, "training", begin, weights=bool(chosen))


def _put_away(p: nn.Parameter, asked: bool) -> None:
    p.requires_grad_(asked)
    p.grad = None


class Trainer:
    """Steps of an optimiser on float32 copies of the parameters ("master weights") where these are in half precision.

    A step of 1e-5 is far below half the distance of neighbouring bfloat16 numbers, so that steps on the weights
    themselves would mostly be lost in rounding, one by one; here they add up, and the weights are the masters, rounded.
    Parameters in float32 are their own masters, and nothing differs from the plain optimiser.
    Mixed precision with master weights: Micikevicius et al., arXiv 1710.03740, section 3.1.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        lr: float,
        optimiser: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
        **options,
    ):
        self.parameters = list(parameters)
        self.masters: list[Tensor] = [p if _exact(p) else p.detach().float() for p in self.parameters]
        self._start = [] if all(map(_exact, self.parameters)) else [p.detach().clone() for p in self.parameters]
        self.optimiser = optimiser(self.masters, lr=lr, **options)

    def step(self, loss: Tensor) -> None:
        """One step down the gradient of `loss`."""
        for p in self.parameters:
            p.grad = None
        loss.backward()
        pairs = [(p, m) for p, m in zip(self.parameters, self.masters, strict=True) if p is not m]
        for p, master in pairs:
            master.grad, p.grad = (None if p.grad is None else p.grad.float()), None
        self.optimiser.step()
        with torch.no_grad():
            for p, master in pairs:
                p.copy_(master)

    def moved(self) -> tuple[float, float] | None:
        """Shares of the masters' numbers, and of the weights', that differ from the start; None in float32."""
        if not self._start:
            return None
        n = sum(m.numel() for m in self.masters)
        masters = sum(int((m != old).sum()) for m, old in zip(self.masters, self._start, strict=True))
        weights = sum(int((p.float() != old).sum()) for p, old in zip(self.parameters, self._start, strict=True))
        return masters / n, weights / n


def _exact(p: Tensor) -> bool:
    return p.dtype not in (torch.bfloat16, torch.float16)


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
