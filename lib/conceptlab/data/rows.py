"""Texts as rows of token ids: packed for harvests, cut and batched for training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from ..core import ConceptLabError
from ..models import LanguageModel
from .questions import few_shot_prompt

Some = TypeVar("Some")


def text_rows(lm: LanguageModel, texts: Sequence[str], n_ctx: int = 32) -> list[list[int]]:
    """Each text cut into rows of at most `n_ctx` token ids (the model's own start token included, if it has one)."""
    check_texts(texts)
    check_n_ctx(n_ctx, lm)
    start = lm.start_ids
    width, rows = n_ctx - len(start), []
    for text in texts:
        ids = lm.encode(text)
        rows += [start + ids[i : i + width] for i in range(0, len(ids), width)]
    rows = [row for row in rows if len(row) >= len(start) + 2]
    if not rows:
        raise ConceptLabError(
            "No text is left to train on; give texts of at least two tokens (a filter that removes the answers may "
            "have removed everything)."
        )
    return rows


def check_texts(texts) -> None:
    """Raises ConceptLabError unless `texts` is a list, not empty, of texts."""
    if isinstance(texts, str):
        raise ConceptLabError(f"A list of texts is needed, not the single text {texts[:40]!r}; put it into a list.")
    if texts is None:
        raise ConceptLabError("A list of texts is needed; got None.")
    if not len(texts):
        raise ConceptLabError("The list of texts is empty; give at least one text.")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ConceptLabError(f"Text {i} of the list is a {type(text).__name__}, {str(text)[:40]!r}; give texts.")


def check_n_ctx(n_ctx, lm: LanguageModel) -> None:
    """Raises ConceptLabError unless a row of `n_ctx` tokens fits the context and holds one beyond what starts it."""
    if not isinstance(n_ctx, int) or isinstance(n_ctx, bool) or n_ctx < 2:
        raise ConceptLabError(f"n_ctx is {n_ctx!r}; a row needs a whole number of tokens, 2 or more.")
    if n_ctx <= len(lm.start_ids):
        raise ConceptLabError(
            f"n_ctx is {n_ctx} and {lm.name} starts a row with {len(lm.start_ids)} tokens; take more."
        )
    if lm.max_ctx is not None and n_ctx > lm.max_ctx:
        raise ConceptLabError(f"n_ctx is {n_ctx} and the context of {lm.name} has {lm.max_ctx} tokens; take fewer.")


@dataclass(frozen=True)
class AnswerRow:
    """A question and its answer as token ids; from index `start` on they are the answer's."""

    ids: list[int]
    start: int


def answer_rows(lm: LanguageModel, pairs: Sequence[tuple[str, str]], n_ctx: int = 48) -> list[AnswerRow]:
    """(question, answer) pairs in the form in which questions are scored, at most `n_ctx` tokens each.

    Question and answer are tokenised one by one, as in scoring. A question that does not fit loses its beginning.
    Raises ConceptLabError where an answer alone does not fit, or has no token.
    """
    check_n_ctx(n_ctx, lm)
    start, rows = lm.start_ids, []
    for question, answer in pairs:
        asked, said = lm.encode(few_shot_prompt([(question, "")]).rstrip()), lm.encode(f" {answer.strip()}")
        room = n_ctx - len(start) - len(said)
        if room < 1 or not answer.strip():
            raise ConceptLabError(
                f"The answer {answer[:40]!r} has {len(said)} tokens and rows have {n_ctx}; take another n_ctx or "
                "answer."
            )
        head = [*start, *asked[-room:]]
        rows.append(AnswerRow([*head, *said], len(head)))
    return rows


def row_batches(rows: Sequence[Some], size: int, seed: int = 0) -> Iterator[list[Some]]:
    """Endless shuffled batches of `size` rows; every row is used once before any is used again."""
    generator = torch.Generator().manual_seed(seed)
    queue: list[int] = []
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

    def fingerprint(self) -> str:
        """16 hexadecimal digits of the token ids, their order, and which of them count (`docs` is not negative)."""
        digest = hashlib.sha256(f"{tuple(self.ids.shape)}\n".encode())
        digest.update(self.ids.to(torch.int64).cpu().numpy().tobytes())
        digest.update((self.docs >= 0).cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def batches(self, size: int, start: int = 0) -> Iterator[tuple[int, Int[Tensor, "batch n_ctx"]]]:
        """(index of the first row, ids) of each batch, from row `start` on: an interrupted pass goes on there."""
        for i in range(start, len(self), size):
            yield i, self.ids[i : i + size]


def token_rows(
    lm: LanguageModel, texts: Sequence[str], n_ctx: int = 128, n_tokens: int | None = None, seed: int = 0
) -> TokenRows:
    """Shuffle `texts` (seeded), tokenise and pack them into rows of `n_ctx` tokens; stop at about `n_tokens`.

    The same arguments give the same rows, and a larger `n_tokens` only appends rows. Special tokens that are written
    out in a text are text. Raises ConceptLabError where not one row can be filled.
    """
    check_texts(texts)
    check_n_ctx(n_ctx, lm)
    if n_tokens is not None and (not isinstance(n_tokens, int) or n_tokens < 1):
        raise ConceptLabError(f"n_tokens is {n_tokens!r}; ask for at least one token, or leave it out to take all.")
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed)).tolist()
    start, end = lm.start_ids, lm.tokenizer.eos_token_id
    separator = [] if end is None else [end]
    body = n_ctx - len(start)
    limit = 10**18 if n_tokens is None else -(-n_tokens // n_ctx) * body
    ids: list[int] = []
    docs: list[int] = []
    for index in order:
        row = lm.encode(texts[index])
        ids += row + separator
        docs += [index] * len(row) + [-1] * len(separator)
        if len(ids) >= limit:
            break
    n_rows = min(len(ids), limit) // body
    if not n_rows:
        raise ConceptLabError(
            f"{len(texts)} texts hold {len(ids)} tokens, too few for one row of {n_ctx}; "
            "give more text or a smaller n_ctx."
        )
    packed = torch.tensor(ids[: n_rows * body], dtype=torch.long).view(n_rows, body)
    sources = torch.tensor(docs[: n_rows * body], dtype=torch.long).view(n_rows, body)
    if start:
        packed = torch.cat([torch.tensor(start).expand(n_rows, -1), packed], 1)
        sources = torch.cat([torch.full((n_rows, len(start)), -1), sources], 1)
    return TokenRows(packed, sources)
