"""The part of `models` between text and token ids.

A text is text: what looks like a special token ("<bos>", "<|endoftext|>") is split into ordinary tokens. Only the
start token, which the tokenizer sets itself, and the markers of a chat template are special.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..core import ConceptLabError


class Tokenized:
    """What a `LanguageModel` can do with texts, and the one place that checks token ids."""

    name: str
    hf: Any  # transformers' model; its parts differ from class to class
    tokenizer: Any

    @property
    def start_ids(self) -> list[int]:
        """What the tokenizer itself puts in front of a text: its start token, or nothing."""
        bare, whole = self.tokenizer("x", add_special_tokens=False).input_ids, self.tokenizer("x").input_ids
        return next(list(whole[:i]) for i in range(len(whole)) if whole[i : i + len(bare)] == bare)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text without a start token; special tokens written in it are text like any other."""
        return list(self.tokenizer(_text(text), add_special_tokens=False, split_special_tokens=True).input_ids)

    def encode_all(self, texts: Iterable[str]) -> list[list[int]]:
        """`encode` of each text, at once: many times faster for the words of a vocabulary."""
        texts = [_text(text) for text in texts]
        if not texts:
            return []
        return [list(r) for r in self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True).input_ids]

    def decode(self, ids: Iterable[int] | Tensor) -> str:
        """Text of token ids, special tokens left out."""
        return self.tokenizer.decode(self._known(ids), skip_special_tokens=True)

    def tokens(
        self, texts: str | Sequence[str], n_ctx: int | None = None
    ) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
        """Token ids (start token included, if the model has one) and mask, padded on the right.

        `n_ctx` cuts longer texts. Raises ConceptLabError for no text, an empty one, one longer than the context.
        """
        if n_ctx is not None and whole_number(n_ctx, "n_ctx") < 1:
            raise ConceptLabError(f"n_ctx is the number of tokens that are kept, 1 or more; got {n_ctx}.")
        texts, start = [texts] if isinstance(texts, str) else list(texts), self.start_ids
        if not texts:
            raise ConceptLabError("No text was given; give at least one.")
        rows = [self.encode(text) for text in texts]
        if not all(rows):
            raise ConceptLabError(f"An empty text was given (number {rows.index([])}); every text needs a token.")
        return self.pad([[*start, *row][:n_ctx] for row in rows])

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
        """Right-padded ids and mask of rows of token ids. Causal attention never looks at right padding."""
        if not rows or not all(len(row) for row in rows):
            raise ConceptLabError("An empty text was given; every text needs at least one token.")
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.as_tensor(row)
            mask[i, : len(row)] = True
        device = self.hf.get_input_embeddings().weight.device
        return self.check_ids(ids).to(device), mask.to(device)

    @property
    def max_ctx(self) -> int | None:
        """Positions the model was made for; None where its configuration names no limit."""
        return getattr(self.hf.config.get_text_config(), "max_position_embeddings", None)

    def check_length(self, n_tokens: int) -> int:
        """`n_tokens`. Raises beyond the context, where rotary models go on computing without a word."""
        if self.max_ctx is not None and n_tokens > self.max_ctx:
            raise ConceptLabError(
                f"A text has {n_tokens} tokens and the context of {self.name} is {self.max_ctx}; shorten the text or "
                f"cut it with n_ctx={self.max_ctx}."
            )
        return n_tokens

    def check_ids(self, ids: Tensor) -> Tensor:
        """`ids`. Raises ConceptLabError where there are none, for ids out of range and beyond the context, for numbers
        that are no ids, and where it is not one row per text."""
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise ConceptLabError(f"Token ids are whole numbers; got {str(ids.dtype).removeprefix('torch.')}.")
        if ids.dim() != 2:
            raise ConceptLabError(f"Token ids are a matrix [texts, positions]; got the shape {list(ids.shape)}.")
        if not ids.numel():
            raise ConceptLabError("No token ids were given; every text needs at least one token.")
        self.check_length(ids.shape[-1])
        low, high = int(ids.min()), int(ids.max())
        last = self.hf.get_input_embeddings().weight.shape[0] - 1
        if low < 0 or high > last:
            wrong = low if low < 0 else high
            raise ConceptLabError(f"Token id {wrong} is out of range; {self.name} has ids 0 to {last}.")
        return ids

    def single_token(self, word: str) -> int:
        """Id of `word` written with a leading space. Raises when it is several tokens, or blank."""
        if not _text(word).strip():
            raise ConceptLabError(f"A word was expected, got {word!r}; give one with a letter in it.")
        ids = self.encode(" " + word.strip())
        if len(ids) != 1:
            raise ConceptLabError(
                f"{word!r} is {len(ids)} tokens for {self.name} ({' + '.join(map(repr, self.words(ids)))}); choose a "
                "word that is a single token."
            )
        return ids[0]

    def single_tokens(self, words: Iterable[str]) -> dict[str, int]:
        """word -> id for those words that are one token (with a leading space); the others are left out."""
        if isinstance(words, str):
            raise ConceptLabError(f"A list of words is needed, not the single word {words[:40]!r}; put it into a list.")
        found = {word: self.encode(" " + word.strip()) for word in words if _text(word).strip()}
        return {word: ids[0] for word, ids in found.items() if len(ids) == 1}

    @cached_property
    def letter_words(self) -> tuple[tuple[int, str], ...]:
        """(id, word) of every token that is a leading space and a word of letters, and comes back from text as itself.

        Such words in a row are split into the same tokens again.
        """
        n = min(self.hf.get_input_embeddings().weight.shape[0], len(self.tokenizer))
        pieces = self.tokenizer.convert_ids_to_tokens(range(n))
        marked = [(i, p[1:]) for i, p in enumerate(pieces) if re.fullmatch(r"[Ġ▁][A-Za-z]+", p)]  # both mean a space
        again = self.encode_all(f" {word}" for _, word in marked)
        return tuple((i, word) for (i, word), ids in zip(marked, again, strict=True) if ids == [i])

    def words(self, ids: Iterable[int] | Tensor) -> list[str]:
        """Readable strings of token ids."""
        return [self.tokenizer.decode([i]) for i in self._known(ids)]

    def _known(self, ids: Iterable[int] | Tensor) -> list[int]:
        numbers = [int(i) for i in ids]
        last = max(self.hf.get_input_embeddings().weight.shape[0], len(self.tokenizer)) - 1
        if wrong := [i for i in numbers if not 0 <= i <= last]:
            raise ConceptLabError(f"Token id {wrong[0]} is out of range; {self.name} has ids 0 to {last}.")
        return numbers


def whole_number(value: object, what: str) -> int:
    """`value` as an int where it is a whole number by type (bool is not). Raises ConceptLabError otherwise."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return value.__index__()  # type: ignore[attr-defined, no-any-return]
    except (AttributeError, TypeError):
        raise ConceptLabError(f"{what} must be a whole number, got {_short(value)}.") from None


def _text(text: object) -> str:
    """`text`, if it is one: a string of whole characters."""
    if not isinstance(text, str):
        raise ConceptLabError(f"A text was expected, got {_short(text)}; give a string.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConceptLabError(
            f"A text holds half a character ({ascii(text[error.start])} at place {error.start}), as a wrong encoding "
            "leaves it; read it again as UTF-8."
        ) from None
    return text


def _short(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
