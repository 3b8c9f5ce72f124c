"""Training of weights in place, undone to the bit afterwards; in half precision on float32 master copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core import ConceptLabError
from ..models import Change, LanguageModel, optimiser_memory, require_training_memory

PARTS = {"down_proj": "mlp.down_proj.", "mlp": "mlp.", "attention": "self_attn.", "block": ""}


def trainable(lm: LanguageModel, chosen: dict[str, nn.Parameter]) -> Change:
    """Inside the block only `chosen` ask for gradients; afterwards every weight is bit-identical to before."""

    def begin(change: Change) -> None:
        for p in lm.parameters().values():
            if p.requires_grad and all(p is not other for other in chosen.values()):
                change.then(partial(p.requires_grad_, True))
                p.requires_grad_(False)
        for p in chosen.values():
            change.keep(p)
            change.then(partial(_put_away, p, p.requires_grad))
            p.requires_grad_(True)

    return Change(lm, "training", begin, weights=bool(chosen))


def _put_away(p: nn.Parameter, asked: bool) -> None:
    p.requires_grad_(asked)
    p.grad = None


class Trainer:
    """Steps of an optimiser on float32 copies of the parameters ("master weights") where these are in half precision.

    A step of 1e-5 is far below half the distance of neighbouring bfloat16 numbers, so that steps on the weights
    themselves would mostly be lost in rounding, one by one. On the masters they add up (Micikevicius et al., arXiv
    1710.03740, section 3.1), and the weights are the masters rounded at random, up or down so that the mean is right
    (Zamirai et al., arXiv 2010.06192): rounded to the nearest, most would not move at all in an attack of a few steps,
    and the loss would hardly fall. Parameters in float32 are their own masters; nothing differs from the plain
    optimiser there. `seed` is that of the rounding. `batch`: what a step's tokens take (`backward_memory`).

    Raises ConceptLabError, with the number, where the device has not the memory for all this.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        lr: float,
        weight_decay: float = 0.0,
        seed: int = 0,
        batch: Mapping[str, int] | None = None,
    ):
        self.parameters = list(parameters)
        self._require_memory(dict(batch or {}))
        self.masters: list[Tensor] = [p if _exact(p) else p.detach().float() for p in self.parameters]
        self._start = [] if all(map(_exact, self.parameters)) else [p.detach().clone() for p in self.parameters]
        self._generators: dict[torch.device, torch.Generator] = {}
        for device in {p.device for p in self.parameters}:
            self._generators[device] = torch.Generator(device).manual_seed(seed)
        self.optimiser = torch.optim.AdamW(self.masters, lr=lr, weight_decay=weight_decay)

    def _require_memory(self, batch: dict[str, int]) -> None:
        sizes: dict[tuple[torch.device, torch.dtype], int] = {}
        for p in self.parameters:
            sizes[p.device, p.dtype] = sizes.get((p.device, p.dtype), 0) + p.numel()
        for (device, dtype), n in sizes.items():
            require_training_memory(f"Training {n:,} weights", optimiser_memory(n, dtype) | batch, device)

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
                p.copy_(rounded_at_random(master, p.dtype, self._generators[p.device]))

    def moved(self) -> tuple[float, float] | None:
        """Shares of the masters' numbers, and of the weights', that differ from the start; None in float32."""
        if not self._start:
            return None
        n = sum(m.numel() for m in self.masters)
        masters = sum(int((m != old).sum()) for m, old in zip(self.masters, self._start, strict=True))
        weights = sum(int((p.float() != old).sum()) for p, old in zip(self.parameters, self._start, strict=True))
        return masters / n, weights / n


def rounded_at_random(x: Float[Tensor, "*shape"], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """float32 numbers in bfloat16 or float16: one of the two neighbours, the nearer one more often, the mean right.

    Below 6e-5 float16 has fewer digits; there it is rounded to the nearest, at distances of 6e-8.
    """
    dropped = 1 << {torch.bfloat16: 16, torch.float16: 13}[dtype]  # float32 has 23 bits behind the point, they 7 and 10
    noise = torch.empty(x.shape, dtype=torch.int32, device=x.device).random_(0, dropped, generator=generator)
    return (x.view(torch.int32) + noise).bitwise_and_(-dropped).view(torch.float32).to(dtype)


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
    found: dict[str, nn.Parameter] = {}
    for layer in range(lm.n_layers) if layers is None else layers:
        prefix = lm.down_proj_name(layer).removesuffix("mlp.down_proj.weight") + PARTS[weights]
        found |= {name: p for name, p in named.items() if name.startswith(prefix)}
    if not found:
        raise ConceptLabError("No layer was chosen to train; give at least one, or layers=None for every layer.")
    return found
