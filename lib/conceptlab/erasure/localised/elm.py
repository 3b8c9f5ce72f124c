"""ELM: a low-rank change after which the model continues texts on the concept as a novice would.

    q(x_t | x_<t)  is proportional to  p(x_t | x_<t) (p(x_t | novice, x_<t) / p(x_t | expert, x_<t))^eta
    L = KL(q || p_theta) on texts to forget  +  KL(p || p_theta) on texts to keep

Erasure of language memory (Gandikota et al., arXiv 2410.02760): `novice` and `expert` are prompts in front of the
text, `p` the original. Trained is LoRA on the MLPs of early layers. The paper's third term, on fluency after a
prompt on the concept, is left out: it needs texts that the trained model writes, step by step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import ConceptLabError
from ...data import Concept
from ...edits import LowRank, Trainer, WeightEdit, lora
from ...models import LanguageModel
from ..method import Method
from .training import SCALES, Batch, batches

if TYPE_CHECKING:
    from ..shared import Shared

EXPERT = "Here is a text by an expert on {}, with every detail right:\n"
NOVICE = "Here is a text by somebody who knows nothing about {}:\n"


@dataclass(frozen=True)
class ElmConfig:
    """How ELM trains, and how much of its change is kept."""

    scale: float = 1.0  # share of the change
    eta: float = 3.0  # how far beyond the novice
    rank: int = 4  # of the change of each weight, as in the paper
    deepest: float = 0.3  # share of the depth: layers below it are trained
    steps: int = 8
    lr: float = 5e-3  # of the adapters
    batch_size: int = 4  # rows to forget, half as many to keep
    n_ctx: int = 32  # tokens per row


def novice_distribution(
    plain: Float[Tensor, "n v"], novice: Float[Tensor, "n v"], expert: Float[Tensor, "n v"], eta: float
) -> Float[Tensor, "n v"]:
    """log q, from log-probabilities of the original alone and behind the two prompts."""
    return (plain + eta * (novice - expert)).log_softmax(-1)


def _logprobs(lm: LanguageModel, ids: Tensor, mask: Tensor, prefix: str = "") -> Float[Tensor, "n v"]:
    """Log-probabilities behind every token that is followed by another one of its row, the prefix left out."""
    front = torch.tensor([lm.encode(prefix)] if prefix else [[]], dtype=torch.long, device=ids.device)
    n_start = len(lm.start_ids)  # a start token stays in front of everything
    front = front.expand(len(ids), -1)
    longer = torch.cat([ids[:, :n_start], front, ids[:, n_start:]], 1)
    kept = torch.cat([mask[:, :n_start], torch.ones_like(front, dtype=torch.bool), mask[:, n_start:]], 1)
    hidden = lm.final_hidden(longer, kept)[:, front.shape[1] :][:, n_start:-1]
    return lm.head(hidden[mask[:, n_start + 1 :]]).float().log_softmax(-1)


@torch.no_grad()
def _targets(lm: LanguageModel, batch: Batch, title: str, eta: float) -> tuple[Tensor, Tensor]:
    """log q on the rows to forget, and the original's log p on those to keep."""
    plain = _logprobs(lm, *batch.forget)
    novice, expert = (_logprobs(lm, *batch.forget, prompt.format(title)) for prompt in (NOVICE, EXPERT))
    return novice_distribution(plain, novice, expert, eta), _logprobs(lm, *batch.keep)


def elm_edit(
    lm: LanguageModel, forget: list[str], keep: list[str], title: str, config: ElmConfig, seed: int = 0
) -> WeightEdit:
    """The whole change of the training, of low rank in every weight. Raises ConceptLabError where it diverges."""
    prefixes = [lm.down_proj_name(x).removesuffix("down_proj.weight") for x in range(_n_layers(lm, config.deepest))]
    names = [name for name in lm.parameters() if name.startswith(tuple(prefixes)) and name.endswith(".weight")]
    planned = batches(lm, forget, keep, config.steps, config.batch_size, config.n_ctx, seed)
    wanted = [_targets(lm, batch, title, config.eta) for batch in planned]
    with torch.enable_grad(), lora(lm, names, config.rank, seed=seed) as adapters:
        trainer = Trainer([p for a in adapters.values() for p in (a.A, a.B)], config.lr, seed=seed)
        for step, batch in enumerate(planned):
            pairs = zip(wanted[step], (batch.forget, batch.keep), strict=True)
            loss = torch.stack([_divergence(q, _logprobs(lm, *part)) for q, part in pairs]).sum()
            if not torch.isfinite(loss):
                raise ConceptLabError(f"ELM diverged at step {step}; lower lr={config.lr:g}.")
            trainer.step(loss)
        changes = {n: LowRank((a.scale * a.B).detach().clone(), a.A.detach().clone()) for n, a in adapters.items()}
    return WeightEdit.of(lm, changes, {"method": "elm", "rank": config.rank, "eta": config.eta})


def _divergence(q: Float[Tensor, "n v"], p: Float[Tensor, "n v"]) -> Float[Tensor, ""]:
    return (q.exp() * (q - p)).sum(-1).mean()


def _n_layers(lm: LanguageModel, share: float) -> int:
    return max(1, round(share * lm.n_layers))


def fit_elm(lm: LanguageModel, concept: Concept, config: ElmConfig, shared: Shared) -> WeightEdit:
    """The change of the training, made once, at a share."""
    made = shared.made(
        ("elm", config.eta, config.rank, config.steps),
        lambda: elm_edit(lm, shared.forget, shared.keep, concept.title, config, shared.seed),
    )
    return made * config.scale


ELM = Method(
    "elm", "localised", "ELM (arXiv 2410.02760), without its fluency term", ElmConfig(), fit_elm,
    {"scale": SCALES}, ("forget", "keep"), "8 steps with LoRA, 1 min",
)  # fmt: skip
