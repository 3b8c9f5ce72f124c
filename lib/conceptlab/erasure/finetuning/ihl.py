"""Inverted hinge loss: `L = mean 1 + p(x_t) - max_{v != x_t} p(v)` over the tokens to forget, with a loss on what is to
be kept, trained as LoRA that starts where FILA puts it (LoKU, Cha et al. 2024, arXiv 2408.06621).

Bounded in [0, 2]: 2 where the model is certain of the true token, 0 where it is certain of another. Its gradient falls
with `p(x_t)`, so that it does nothing on text that the model does not predict anyway (our leads, at 3 to 4 nats a
token): it is trained on answers. FILA and what its code gets wrong stand in `fila.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from ...models import LanguageModel, scored_logits
from ..method import Method
from .fila import fila_starts
from .fit import GRID, FinetunedConfig, fitted_on
from .loop import TuningConfig
from .materials import answers
from .terms import Step, Term


def inverted_hinge(logits: Float[Tensor, "n d_vocab"], targets: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """`1 + p(target) - max_{v != target} p(v)` of each token, in [0, 2]."""
    p = logits.softmax(-1)
    true = p.gather(1, targets[:, None])[:, 0]
    return 1 + true - p.scatter(1, targets[:, None], -1.0).amax(1)


@dataclass(frozen=True)
class InvertedHinge(Term):
    """Mean `inverted_hinge` of what is to be forgotten."""

    def __call__(self, lm: LanguageModel, step: Step, reference: None) -> Float[Tensor, ""]:
        rows = step.forget
        logits, targets, _ = scored_logits(lm, rows.ids, rows.mask, rows.scored)
        return inverted_hinge(logits, targets).mean()


SOURCE = "LoKU (Cha et al. 2024, arXiv 2408.06621)"
NEEDS = ("forget_facts", "keep_facts", "keep")
IHL = Method(
        "ihl", "fine-tuning", f"{SOURCE}: the loss alone",
        FinetunedConfig(forget=InvertedHinge(), tuning=TuningConfig(weights="down_proj")),
        fitted_on(answers), GRID, NEEDS, "12 steps, 30 s",
    )  # fmt: skip
LOKU = Method(
        "loku", "fine-tuning", f"{SOURCE}: the loss, on LoRA that starts by FILA",
        FinetunedConfig(forget=InvertedHinge(), tuning=TuningConfig(weights="down_proj", rank=8, alpha=8.0, lr=1e-3)),
        fitted_on(answers, start=fila_starts), GRID, NEEDS, "12 steps, 40 s",
    )  # fmt: skip
