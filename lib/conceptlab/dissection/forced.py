"""What the models read: questions with answers that are given (teacher forcing), and where the answers are predicted.

Two protocols. `forced_own` is the paper's: no examples, and the original model's own greedy answer, right or wrong.
`forced_gold`: four answered examples in front, and the right answer. The first asks whether the unlearned model still
*says* the same, whatever that was; the second whether it still *knows* the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ..core import NotPossible
from ..data import FEW_SHOT, Question, question_stem
from ..models import LanguageModel, Packed, greedy, pack, prefix_ids


@dataclass(frozen=True)
class Forced:
    """Rows of tokens, and the positions whose logits predict a token of an answer."""

    packed: Packed
    at: Int[Tensor, " tokens"]  # positions in the packed row
    targets: Int[Tensor, " tokens"]  # the answers' tokens, which are predicted there
    lengths: tuple[int, ...]  # tokens of each answer
    answers: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.lengths)

    def first(self, n: int) -> Forced:
        """The first `n` rows, or all where there are fewer."""
        tokens = sum(self.lengths[:n])
        packed, lengths = self.packed.only(n), self.lengths[:n]
        return Forced(packed, self.at[:tokens], self.targets[:tokens], lengths, self.answers[:n])


def forced_gold(lm: LanguageModel, questions: Sequence[Question], few_shot: str = FEW_SHOT) -> Forced:
    """Right answers behind answered examples, which all questions share."""
    stems = [lm.encode(question_stem(q, few_shot)) for q in questions]
    return _forced(lm, prefix_ids(lm, few_shot), stems, [lm.encode(f" {q.gold}") for q in questions])


def forced_own(lm: LanguageModel, questions: Sequence[Question], n_tokens: int = 10) -> Forced:
    """The model's own greedy answers of at most `n_tokens` tokens, without examples; call it on the original.

    Questions that the model answers with nothing are left out. Raises NotPossible where that is every question.
    """
    stems = [[*lm.start_ids, *lm.encode(question_stem(q, ""))] for q in questions]
    answers = greedy(lm, stems, n_tokens)
    kept = [(stem, answer) for stem, answer in zip(stems, answers, strict=True) if answer]
    if not kept:
        raise NotPossible(f"{lm.name} answers none of the {len(questions)} questions with any token.")
    return _forced(lm, [], [stem for stem, _ in kept], [answer for _, answer in kept])


def _forced(
    lm: LanguageModel, prefix: Sequence[int], stems: Sequence[list[int]], answers: Sequence[list[int]]
) -> Forced:
    packed = pack(lm, prefix, [stem + answer for stem, answer in zip(stems, answers, strict=True)])
    at = [
        start + len(stem) - 1 + t  # the position before a token predicts it
        for start, stem, answer in zip(packed.starts, stems, answers, strict=True)
        for t in range(len(answer))
    ]
    targets = torch.tensor([token for answer in answers for token in answer])
    texts = tuple(lm.decode(answer) for answer in answers)
    return Forced(packed, torch.tensor(at), targets, tuple(map(len, answers)), texts)
