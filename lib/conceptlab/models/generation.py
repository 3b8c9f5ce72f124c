"""Greedy continuations of many prompts at once."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from ..core import ConceptLabError
from .guards import reading, rewritten
from .language_model import LanguageModel
from .registry import quiet_transformers
from .tokens import whole_number


@torch.no_grad()
def greedy(
    lm: LanguageModel, prompts: Sequence[str] | Sequence[Sequence[int]], n_tokens: int, batch_size: int = 16
) -> list[list[int]]:
    """The `n_tokens` most likely next tokens of each prompt (a text, or a row of token ids); `lm.decode` reads them.

    Fewer where the model ends its text. Rows of a batch are padded on the left. Raises ConceptLabError for no prompt,
    an empty one, `n_tokens` below 1, and where prompt and answer leave the context.
    """
    if isinstance(prompts, str):
        raise ConceptLabError("greedy continues a list of prompts; put the one text into a list.")
    rows = [[*lm.start_ids, *lm.encode(p)] if isinstance(p, str) else [int(i) for i in p] for p in prompts]
    if not rows or not all(rows) or "" in prompts or whole_number(n_tokens, "n_tokens") < 1:
        raise ConceptLabError("greedy needs at least one prompt, every prompt a token, and n_tokens of 1 or more.")
    lm.check_ids(torch.tensor([i for row in rows for i in row])[:, None])
    rows = [rewritten(lm, row) for row in rows]
    lm.check_length(max(map(len, rows)) + n_tokens)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # rows of like length together
    results: list[list[int]] = [[] for _ in rows]
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        for i, row in zip(chosen, _continued(lm, [rows[i] for i in chosen], n_tokens), strict=True):
            results[i] = row
    return results


def _continued(lm: LanguageModel, rows: list[list[int]], n_tokens: int) -> list[list[int]]:
    stop = lm.tokenizer.eos_token_id
    fill = 0 if stop is None else stop
    width = max(map(len, rows))
    ids = torch.tensor([[fill] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    with quiet_transformers(), reading(lm, rows, mask.bool()):
        out = lm.hf.generate(
            ids.to(lm.device), attention_mask=mask.to(lm.device), max_new_tokens=n_tokens, do_sample=False,
            pad_token_id=fill,
        )  # fmt: skip
    return [row[: row.index(stop)] if stop in row else row for row in out[:, width:].tolist()]


_PLACE = "\N{WHITE MEDIUM LOZENGE}message\N{WHITE MEDIUM LOZENGE}"  # stands for the message while the template is read


def chat_rows(lm: LanguageModel, messages: Sequence[str]) -> list[list[int]]:
    """Token ids of each message as a user's turn, up to where the model's answer begins.

    Markers of the template are special tokens, a message is text whatever is written in it. A tokenizer without a chat
    template (a base model) gets the plain words User and Assistant instead.
    """
    if lm.tokenizer.chat_template is None:
        return [[*lm.start_ids, *lm.encode(f"User: {message}\nAssistant:")] for message in messages]
    turn = lm.tokenizer.apply_chat_template(
        [{"role": "user", "content": _PLACE}], tokenize=False, add_generation_prompt=True
    )
    special = {token.content: i for i, token in lm.tokenizer.added_tokens_decoder.items() if token.special}
    marks = "|".join(map(re.escape, sorted(special, key=len, reverse=True)))
    pieces = [piece for piece in re.split(f"({marks})", turn) if piece]
    rows = []
    for message in messages:
        parts = ([special[p]] if p in special else lm.encode(p.replace(_PLACE, message)) for p in pieces)
        rows.append([i for part in parts for i in part])
    return rows
