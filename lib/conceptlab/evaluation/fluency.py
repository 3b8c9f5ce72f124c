"""Fluency: how well a model predicts ordinary text that no part of the course was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError
from ..models import LanguageModel


@dataclass(frozen=True)
class Fluency:
    """Loss of each text: its summed negative log-probability (nats) and the number of predicted tokens."""

    nll: Float[Tensor, " n"]
    n_tokens: Float[Tensor, " n"]

    @property
    def loss(self) -> float:
        """Nats per token over all texts."""
        return float(self.nll.sum() / self.n_tokens.sum())

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss)


@torch.no_grad()
def fluency(lm: LanguageModel, texts: Sequence[str], n_ctx: int = 96, batch_size: int = 8) -> Fluency:
    """Next-token loss of `texts`, each cut to `n_ctx` tokens. Raises when a text has fewer than two tokens."""
    if not texts:
        raise ConceptLabError("Fluency needs at least one text; the list was empty.")
    if n_ctx < 2 or batch_size < 1:
        raise ConceptLabError(f"Fluency reads at least 2 tokens, 1 text at a time; got n_ctx={n_ctx}, {batch_size=}.")
    if empty := [i for i, text in enumerate(texts) if not text.strip()]:
        raise ConceptLabError(f"Text {empty[0]} of the fluency measurement is empty; leave it out.")
    losses, counts = [], []
    for i in range(0, len(texts), batch_size):
        ids, mask = lm.tokens(list(texts[i : i + batch_size]), n_ctx)
        if int(mask.sum(1).min()) < 2:
            raise ConceptLabError("Every text of a fluency measurement needs at least two tokens.")
        ids, mask = ids.to(lm.device), mask.to(lm.device)
        hidden = lm.final_hidden(ids, mask)
        real = mask[:, 1:].bool()  # only there is the vocabulary read out, the dearest step of a small model
        logits = lm.head(hidden[:, :-1][real]).float()
        nll = torch.zeros(real.shape, device=lm.device)
        nll[real] = logits.logsumexp(-1) - logits.gather(1, ids[:, 1:][real][:, None])[:, 0]
        losses.append(nll.sum(1).cpu())
        counts.append(real.sum(1).float().cpu())
    nll = torch.cat(losses)
    if not bool(nll.isfinite().all()):
        raise ConceptLabError(
            "The loss of a held-out text is not finite: the model overflows; load it in float32, or make the "
            "intervention weaker."
        )
    return Fluency(nll, torch.cat(counts))
