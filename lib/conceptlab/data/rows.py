"""Texts as rows of token ids: packed for harvests, cut and batched for training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ..core import ConceptLabError
from ..models import LanguageModel


def text_rows(lm: LanguageModel, texts: Sequence[str], n_ctx: int = 32) -> list[list[int]]:
    """Each text cut into rows of at most `n_ctx` token ids (the model's own start token included, if it has one)."""
    if isinstance(texts, str):
        raise ConceptLabError("relearn needs a list of texts; put a single text into a list.")
    start = [lm.tokenizer.bos_token_id] if lm.tokenizer("x").input_ids[0] == lm.tokenizer.bos_token_id else []
    width, rows = n_ctx - len(start), []
    for text in texts:
        ids = lm.tokenizer(text, add_special_tokens=False).input_ids
        rows += [start + ids[i : i + width] for i in range(0, len(ids), width)]
    rows = [row for row in rows if len(row) >= len(start) + 2]
    if not rows:
        raise ConceptLabError(
            "No text is left to train on; give texts of at least two tokens (a filter that removes the answers may "
            "have removed everything)."
        )
    return rows


def row_batches(rows: Sequence[list[int]], size: int, seed: int = 0) -> Iterator[list[list[int]]]:
    """Endless shuffled batches of `size` rows; every row is used once before any is used again."""
    generator, queue = torch.Generator().manual_seed(seed), []
    while True:
        while len(queue) < size:
            queue += torch.randperm(len(rows), generator=generator).tolist()
        yield [rows[i] for i in queue[:size]]
        queue = queue[size:]


# ---- token rows -------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class TokenRows:
    """Token ids packed into rows of `n_ctx`, with the text each token came from.

    Texts follow one another, a separator (the model's end-of-text token) between them; where the tokenizer has a
    start token of its own (Gemma), every row begins with it. `docs` holds the index of the text, -1 at separators
    and start tokens.
    """

    ids: Int[Tensor, "rows n_ctx"]
    docs: Int[Tensor, "rows n_ctx"]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_tokens(self) -> int:
        return self.ids.numel()

    def batches(self, size: int, start: int = 0) -> Iterator[tuple[int, Int[Tensor, "batch n_ctx"]]]:
        """(index of the first row, ids) of each batch, from row `start` on: an interrupted pass goes on there."""
        for i in range(start, len(self), size):
            yield i, self.ids[i : i + size]


def token_rows(
    lm: LanguageModel, texts: Sequence[str], n_ctx: int = 128, n_tokens: int | None = None, seed: int = 0
) -> TokenRows:
    """Shuffle `texts` (seeded), tokenise and pack them into rows of `n_ctx` tokens; stop at about `n_tokens`.

    The same arguments give the same rows, and a larger `n_tokens` only appends rows.
    """
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed)).tolist()
    start = [lm.tokenizer.bos_token_id] if lm.tokenizer("x").input_ids[0] == lm.tokenizer.bos_token_id else []
    body = n_ctx - len(start)
    limit = (len(texts) and 10**18) if n_tokens is None else -(-n_tokens // n_ctx) * body
    ids: list[int] = []
    docs: list[int] = []
    for index in order:
        row = lm.tokenizer(texts[index], add_special_tokens=False).input_ids
        ids += [*row, lm.tokenizer.eos_token_id]
        docs += [index] * len(row) + [-1]
        if len(ids) >= limit:
            break
    n_rows = min(len(ids), limit) // body
    packed = torch.tensor(ids[: n_rows * body], dtype=torch.long).view(n_rows, body)
    sources = torch.tensor(docs[: n_rows * body], dtype=torch.long).view(n_rows, body)
    if start:
        packed = torch.cat([torch.full((n_rows, 1), start[0]), packed], 1)
        sources = torch.cat([torch.full((n_rows, 1), -1), sources], 1)
    return TokenRows(packed, sources)
