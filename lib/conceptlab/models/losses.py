"""Losses of the next token: mean cross-entropy, and log-probability of whole rows."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core import ConceptLabError
from .language_model import LanguageModel


def sequence_logprobs(
    lm: LanguageModel, ids: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"]
) -> Float[Tensor, " batch"]:
    """Summed log-probability (nats) of every real token but the first of its row."""
    ids, mask = ids.to(lm.device), mask.to(lm.device)
    hidden = lm.final_hidden(ids, mask)
    logprobs = lm.head(hidden[:, :-1]).float().log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    return (logprobs * mask[:, 1:]).sum(1)


def next_token_loss(
    lm: LanguageModel, ids: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy (nats) of every real token but the first of its row; padding neither predicts nor counts."""
    ids, mask = ids.to(lm.device), mask.to(lm.device)
    hidden = lm.final_hidden(ids, mask)
    counted = mask[:, 1:] & mask[:, :-1]
    if not counted.any():
        raise ConceptLabError("No token to predict: every row needs at least two tokens.")
    logits = lm.head(hidden[:, :-1][counted])  # the unembedding is the dearest product; padding never reaches it
    return torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][counted])
