"""Greedy continuations of many prompts at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..core import ConceptLabError
from .language_model import LanguageModel
from .registry import quiet_transformers


@torch.no_grad()
def greedy(lm: LanguageModel, rows: Sequence[Sequence[int]], n_tokens: int, batch_size: int = 16) -> list[list[int]]:
    """The `n_tokens` most likely next tokens of each row of token ids; fewer where the model ends its text.

    Rows of a batch are padded on the left. Raises ConceptLabError for an empty row.
    """
    if not rows or not all(rows) or n_tokens < 1:
        raise ConceptLabError("greedy needs at least one prompt, every prompt a token, and n_tokens of 1 or more.")
    stop = lm.tokenizer.eos_token_id
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # rows of like length together
    results: list = [None] * len(rows)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        width = max(len(rows[i]) for i in chosen)
        ids = torch.tensor([[stop] * (width - len(rows[i])) + list(rows[i]) for i in chosen])
        mask = torch.tensor([[0] * (width - len(rows[i])) + [1] * len(rows[i]) for i in chosen])
        with quiet_transformers():
            out = lm.hf.generate(
                ids.to(lm.device), attention_mask=mask.to(lm.device), max_new_tokens=n_tokens, do_sample=False,
                pad_token_id=stop,
            )  # fmt: skip
        for i, row in zip(chosen, out[:, width:].tolist(), strict=True):
            results[i] = row[: row.index(stop)] if stop in row else row
    return results


def chat_rows(lm: LanguageModel, messages: Sequence[str]) -> list[list[int]]:
    """Token ids of each message as a user's turn, up to where the model's answer begins.

    A tokenizer without a chat template (a base model) gets the plain words User and Assistant instead.
    """
    if lm.tokenizer.chat_template is None:
        return [lm.tokenizer(f"User: {message}\nAssistant:").input_ids for message in messages]
    turns = [
        lm.tokenizer.apply_chat_template([{"role": "user", "content": m}], tokenize=False, add_generation_prompt=True)
        for m in messages
    ]
    return [lm.tokenizer(turn, add_special_tokens=False).input_ids for turn in turns]  # the template holds them all
