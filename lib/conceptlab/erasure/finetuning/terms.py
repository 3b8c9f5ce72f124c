"""What the losses are made of: rows that are trained on, a step's batches, and the two terms that hold what is kept.

A loss is the sum of a term on what is to be forgotten and one on what is to be kept. Each term may compute a reference
once, on the original weights and on the very batches that will be trained on, so that no second model is in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...data import AnswerRow
from ...edits import Adapter
from ...models import LanguageModel, scored_logits


@dataclass(frozen=True)
class MarkedRows:
    """Token ids of a batch, right-padded: which are real, and which are scored (predicted and counted)."""

    ids: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]
    scored: Bool[Tensor, "batch pos"]

    @classmethod
    def of(cls, lm: LanguageModel, rows: Sequence[AnswerRow]) -> MarkedRows:
        """A batch; of each row the tokens from its `start` on are scored."""
        ids, mask = lm.pad([row.ids for row in rows])
        first = torch.tensor([[max(row.start, 1)] for row in rows], device=ids.device)
        return cls(ids, mask, mask & (torch.arange(ids.shape[1], device=ids.device) >= first))

    @property
    def lengths(self) -> Int[Tensor, " batch"]:
        """Scored tokens of each row: those that are predicted, so never one more than there are predictions."""
        return self.scored.sum(1)


@dataclass(frozen=True)
class Step:
    """The batches of one step; `instead` pairs each row to forget with another answer to the same question."""

    forget: MarkedRows
    instead: MarkedRows | None = None
    keep: MarkedRows | None = None


class Term:
    """A term of a loss. Subclasses are frozen dataclasses with their constants as fields."""

    def reference(self, lm: LanguageModel, step: Step, head_moves: bool) -> Any:
        """What the term needs of the original model, computed once before the training; None: nothing.

        `head_moves`: the unembedding is among what is trained.
        """
        return None

    def __call__(self, lm: LanguageModel, step: Step, reference: Any) -> Float[Tensor, ""]:
        """The value on one step's batches, to be lowered."""
        raise NotImplementedError

    def penalty(self, adapters: Mapping[str, Adapter]) -> Tensor | None:
        """What is added for the adapters themselves; None: nothing."""
        return None


def cross_entropy(lm: LanguageModel, rows: MarkedRows) -> Float[Tensor, ""]:
    """Mean cross-entropy (nats) of the scored tokens; on whole texts `next_token_loss` to the bit."""
    logits, targets, _ = scored_logits(lm, rows.ids, rows.mask, rows.scored)
    return torch.nn.functional.cross_entropy(logits, targets)


def row_logprobs(lm: LanguageModel, rows: MarkedRows) -> Float[Tensor, " batch"]:
    """Summed log-probability (nats) of each row's scored tokens."""
    logits, targets, _ = scored_logits(lm, rows.ids, rows.mask, rows.scored)
    found = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    table = found.new_zeros(rows.ids.shape).masked_scatter(rows.scored, found)
    return table[:, 1:].sum(1)


def row_means(rows: MarkedRows, values: Float[Tensor, " n"], where: Int[Tensor, " n"]) -> Float[Tensor, " batch"]:
    """Mean over each row's scored tokens of values that `scored_logits` orders; padding and question do not count."""
    return values.new_zeros(len(rows.ids)).index_add(0, where, values) / rows.lengths


@dataclass(frozen=True)
class KeepLoss(Term):
    """Cross-entropy on what is to be kept (the second term of gradient difference, arXiv 2203.12817)."""

    def __call__(self, lm: LanguageModel, step: Step, reference: None) -> Float[Tensor, ""]:
        assert step.keep is not None
        return cross_entropy(lm, step.keep)


@dataclass(frozen=True)
class KeepDistribution(Term):
    """`KL(p_0 || p)` per scored token of what is to be kept: the model should say what the original said, `p_0`.

    Codes that descend from TOFU (arXiv 2401.06121) average it over every position, so that the prompt and the padding
    count as kept text and the term's weight depends on the longest row of the batch; and they run a second model in
    every step. Here only scored tokens count, and what is kept of the original are its last hidden states, from which
    the frozen unembedding makes `p_0` again (a vocabulary's worth of numbers a token is kept only where that is
    trained, too).
    """

    def reference(self, lm: LanguageModel, step: Step, head_moves: bool) -> tuple[Tensor, bool]:
        assert step.keep is not None
        hidden = lm.final_hidden(step.keep.ids, step.keep.mask)[:, :-1][step.keep.scored[:, 1:]]
        return (lm.head(hidden).float() if head_moves else hidden), head_moves

    def __call__(self, lm: LanguageModel, step: Step, reference: tuple[Tensor, bool]) -> Float[Tensor, ""]:
        assert step.keep is not None
        logits, _, _ = scored_logits(lm, step.keep.ids, step.keep.mask, step.keep.scored)
        kept, are_logits = reference
        with torch.no_grad():
            before = (kept if are_logits else lm.head(kept).float()).log_softmax(-1)
        return torch.nn.functional.kl_div(logits.log_softmax(-1), before, reduction="batchmean", log_target=True)
