"""Continual forgetting: requests one after the other, each with a LoRA of its own on the model that the ones before
left, `L = ReLU(bound - CE(forget)) + weight CE(keep) + sparsity sum_l ||(A, B)_l||` over layers l (GS-LoRA, Zhao et al.
2024, arXiv 2403.11530; 2501.09705 with noisy and missing data).

A port, and said so: the paper forgets classes of vision models. The bounded term stops pushing what is forgotten far
enough, which keeps later requests from undoing the model. The norm of a layer's adapters is not squared, so that whole
layers are pushed to zero; an optimiser of Adam's kind never makes one exactly zero, and the released code calls a layer
unused by a threshold. It also starts A at random in every layer, so that the norms measure the start as much as the
change until the penalty has had the steps to take it down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ...data import Concept
from ...edits import Adapter, WeightEdit, applied
from ...models import LanguageModel
from ..method import Method
from .fit import GRID, FinetunedConfig
from .loop import Loss, Material, TuningConfig, finetune
from .materials import texts
from .terms import Step, Term, cross_entropy

if TYPE_CHECKING:
    from ..shared import Shared


@dataclass(frozen=True)
class BoundedAscent(Term):
    """`ReLU(bound - CE(forget))`, and the sum over layers of the norm of a layer's adapters."""

    bound: float = 6.0  # nats per token, above which nothing is pushed any more
    sparsity: float = 1e-4  # weight of the norms

    def __call__(self, lm: LanguageModel, step: Step, reference: None) -> Float[Tensor, ""]:
        return torch.relu(self.bound - cross_entropy(lm, step.forget))

    def penalty(self, adapters: Mapping[str, Adapter]) -> Tensor | None:
        layers: dict[str, list[Tensor]] = {}
        for name, a in adapters.items():
            layers.setdefault(name.split(".mlp.")[0].split(".self_attn.")[0], []).extend([a.A, a.B])
        if not layers:
            return None
        return self.sparsity * torch.stack([torch.cat([x.flatten() for x in g]).norm() for g in layers.values()]).sum()


def forget_in_turn(
    lm: LanguageModel, loss: Loss | Term, requests: Sequence[Material], cfg: TuningConfig
) -> list[WeightEdit]:
    """The edit after each request, the ones before included; `cfg` is the budget of one request."""
    edits: list[WeightEdit] = []
    for number, material in enumerate(requests):
        with applied(edits[-1] if edits else None, lm):
            new = finetune(lm, loss, material, replace(cfg, seed=cfg.seed + number))
        edits.append(edits[-1] + new if edits else new)
    return edits


@dataclass(frozen=True)
class ContinualConfig(FinetunedConfig):
    """As for one training, `tuning.steps` being those of one request."""

    requests: int = 3  # parts into which what is to be forgotten is dealt out


def fit_continual(lm: LanguageModel, concept: Concept, config: ContinualConfig, shared: Shared) -> WeightEdit:
    """The change after the last request, scaled; it is trained once for all scales."""
    once = replace(config, scale=1.0)

    def last() -> WeightEdit:
        cfg = config.trained(lm, shared.seed)
        whole = shared.made(("material", texts, cfg.n_ctx), lambda: texts(lm, shared, cfg.n_ctx))
        parts = [Material(whole.forget[i :: config.requests], whole.keep) for i in range(config.requests)]
        return forget_in_turn(lm, Loss(config.forget, config.keep, config.weight), parts, cfg)[-1]

    return shared.lately((fit_continual, replace(once, rate=1.0)), once, last) * config.scale


CONFIG = ContinualConfig(
    forget=BoundedAscent(), tuning=TuningConfig(steps=4, weights="mlp", rank=4, alpha=4.0, lr=2e-3)
)
CONTINUAL = Method(
        "continual", "fine-tuning", "GS-LoRA (Zhao et al. 2024, arXiv 2403.11530), a port: three requests in turn",
        CONFIG, fit_continual, GRID, ("forget", "keep"), "3 x 4 steps, 40 s",
    )  # fmt: skip
