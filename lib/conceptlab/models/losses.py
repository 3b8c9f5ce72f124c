"""Losses of the next token: mean cross-entropy, and the logits at chosen tokens."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core import ConceptLabError
from .language_model import LanguageModel


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


def scored_logits(
    lm: LanguageModel,
    ids: Int[Tensor, "batch pos"],
    mask: Bool[Tensor, "batch pos"],
    scored: Bool[Tensor, "batch pos"],
) -> tuple[Float[Tensor, "n d_vocab"], Int[Tensor, " n"], Int[Tensor, " n"]]:
    """What predicts the tokens marked in `scored`: logits in float32, the tokens themselves, and their rows.

    In the order of the rows, each from left to right. The unembedding is computed at no other position, so that a
    row's question and its padding cost nothing there. A row's first token is predicted by nothing: it may not be
    marked, nor padding. Raises ConceptLabError for such marks and where nothing is marked.
    """
    ids, mask, scored = (x.to(lm.device) for x in (ids, mask, scored))
    if bool((scored & ~mask).any()) or bool(scored[:, 0].any()):
        raise ConceptLabError("The first token of a row and padding cannot be scored; mark other tokens.")
    if not scored.any():
        raise ConceptLabError("No token to predict: every row needs at least one token that is scored.")
    hidden = lm.final_hidden(ids, mask)[:, :-1][scored[:, 1:]]
    return lm.head(hidden).float(), ids[scored], scored.nonzero()[:, 0]
