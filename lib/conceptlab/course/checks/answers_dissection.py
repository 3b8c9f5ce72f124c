"""Answers of notebook 07: measuring what a patch brings back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor


def answer_length(row: Sequence[int], width: int, end: int) -> int:
    """Tokens of the answer behind a prompt that was padded on the left to `width`: up to the first `end`."""
    answer = list(row[width:])
    return answer.index(end) if end in answer else len(answer)


def predicting(n_prompt: int, n_answer: int) -> list[int]:
    """Positions whose logits predict the tokens of an answer behind a prompt."""
    return list(range(n_prompt - 1, n_prompt - 1 + n_answer))


def shift_free(z: Tensor, z0: Tensor) -> Tensor:
    """Mean squared difference `[tokens]` of logits `[tokens, d_vocab]` after each side's mean is taken off."""
    gap = z - z0
    return (gap - gap.mean(-1, keepdim=True)).square().mean(-1)


def patch_hooks(kept: Mapping[int, Tensor], first: int, last: int) -> dict:
    """Hooks that put kept coefficients into the layers `first` to `last`."""

    def give(activation: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda _x: activation

    return {("neurons", layer): give(kept[layer]) for layer in range(first, last + 1)}


def taken_back(treated: Tensor, lost: Tensor) -> Tensor:
    """Share of a distance that a treatment takes back: ratio of the means over questions."""
    return 1 - treated.mean() / lost.mean()


def share_gaps(treated: Tensor, lost: Tensor, treated_c: Tensor, lost_c: Tensor, picks: Tensor) -> Tensor:
    """Per resample the share of an edit minus the share of its control, the same questions on both sides."""
    a = 1 - treated[picks].mean(1) / lost[picks].mean(1)
    b = 1 - treated_c[picks].mean(1) / lost_c[picks].mean(1)
    return a - b


ANSWERS: dict[str, Callable[..., Any]] = {
    "length of an answer": answer_length,
    "positions that predict": predicting,
    "distance without a shift": shift_free,
    "patching a window": patch_hooks,
    "share taken back": taken_back,
    "difference to a control": share_gaps,
}
