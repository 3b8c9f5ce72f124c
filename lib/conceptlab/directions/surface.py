"""What can be told without any model: length, digits and punctuation, or which words there are."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..data import ContrastItem


def counts(items: Sequence[ContrastItem]) -> Float[Tensor, "1 n 4"]:
    """Characters, words, digits and punctuation marks of every prompt, in the shape of one layer."""
    rows = [
        [len(t), len(t.split()), len(re.findall(r"\d", t)), len(re.findall(r"[^\w\s]", t))]
        for t in (item.text for item in items)
    ]
    return torch.tensor(rows, dtype=torch.float32)[None]


def words(items: Sequence[ContrastItem]) -> Float[Tensor, "1 n words"]:
    """How often each word stands in every prompt."""
    return _bag([item.text for item in items])


def asked_words(items: Sequence[ContrastItem]) -> Float[Tensor, "1 n words"]:
    """The words of the question alone; the story is the same for all kinds."""
    return _bag([item.text.rpartition("Question:")[2] for item in items])


def said_words(items: Sequence[ContrastItem]) -> Float[Tensor, "1 n words"]:
    """The words of the one sentence about the person asked for: what a reader sees who only finds that sentence."""
    return _bag([item.said for item in items])


def _bag(texts: Sequence[str]) -> Float[Tensor, "1 n words"]:
    found = [re.findall(r"\w+|[^\w\s]", text.lower()) for text in texts]
    known = {word: i for i, word in enumerate(sorted({word for words in found for word in words}))}
    table = torch.zeros(1, len(texts), max(1, len(known)))
    for row, text in enumerate(found):
        for word in text:
            table[0, row, known[word]] += 1
    return table


SURFACES: dict[str, Callable[[Sequence[ContrastItem]], Float[Tensor, "1 n d"]]] = {
    "counts": counts, "words": words, "asked": asked_words, "said": said_words,
}  # fmt: skip
