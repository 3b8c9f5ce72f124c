"""Log-probabilities of alternative continuations, with everything they share computed once.

A few-shot prefix is run once and kept as a key-value cache. Each tree `stem -> branches` then is ONE row: the
branches follow the stem and a tree-shaped attention mask keeps them from seeing each other, so a four-way question
costs about 30 token positions instead of four rows of the full prompt.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .cache import ConceptLabError
from .models import LanguageModel

Tree = tuple[str, Sequence[str]]


@torch.no_grad()
def branch_logprobs(
    lm: LanguageModel, prefix: str, trees: Sequence[Tree], batch_size: int = 32
) -> list[list[Float[Tensor, " n_tokens"]]]:
    """For each tree, for each branch: the log-probability of every token of the branch given prefix and stem.

    Texts are tokenised piece by piece, so write pieces that begin at a token boundary (a leading space or newline).
    Raises ConceptLabError for a piece without tokens, and for texts longer than a model's sliding attention window,
    since the tree-shaped mask stands for full attention.
    """
    from transformers import DynamicCache

    start = lm.tokenizer.bos_token_id if lm.tokenizer.bos_token_id is not None else lm.tokenizer.eos_token_id
    head = lm.tokenizer(prefix).input_ids if prefix else [start]
    cache = DynamicCache(config=lm.hf.config)
    lm.hf.get_decoder()(torch.tensor([head], device=lm.device), past_key_values=cache, use_cache=True)
    encoded = [(_ids(lm, stem), [_ids(lm, b) for b in branches]) for stem, branches in trees]
    window = getattr(lm.hf.config, "sliding_window", None)
    longest = len(head) + max(map(_length, encoded), default=0)
    if window is not None and longest > window:
        raise ConceptLabError(f"{lm.name} attends to {window} tokens and a text has {longest}; shorten the prefix.")
    order = sorted(range(len(trees)), key=lambda i: _length(encoded[i]))  # rows of like length together
    results: list = [None] * len(trees)
    for i in range(0, len(order), batch_size):
        chosen = order[i : i + batch_size]
        shared = copy.deepcopy(cache)
        shared.batch_repeat_interleave(len(chosen))
        for j, found in zip(chosen, _batch(lm, [encoded[j] for j in chosen], shared, len(head)), strict=True):
            results[j] = found
    return results


def _ids(lm: LanguageModel, text: str) -> list[int]:
    ids = lm.tokenizer(text, add_special_tokens=False).input_ids
    if not ids:
        raise ConceptLabError(f"The text {text!r} has no tokens; stems and branches need at least one.")
    return ids


def _length(tree: tuple[list[int], list[list[int]]]) -> int:
    return len(tree[0]) + sum(map(len, tree[1]))


def _batch(lm: LanguageModel, trees: list, cache, n_head: int) -> list[list[Tensor]]:
    width = max(map(_length, trees))
    ids = torch.zeros(len(trees), width, dtype=torch.long)
    positions = torch.zeros_like(ids)
    allowed = torch.zeros(len(trees), 1, width, n_head + width, dtype=torch.bool)
    allowed[..., :n_head] = True
    where: list[tuple[int, int, int]] = []  # (row, position that predicts, target token) of every branch token
    for row, (stem, branches) in enumerate(trees):
        n = len(stem)
        ids[row, :n] = torch.tensor(stem)
        positions[row, :n] = torch.arange(n)
        allowed[row, 0, :n, n_head : n_head + n] = torch.ones(n, n, dtype=torch.bool).tril()
        for branch in branches:
            start, m = n, len(branch)
            ids[row, start : start + m] = torch.tensor(branch)
            positions[row, start : start + m] = len(stem) + torch.arange(m)
            block = allowed[row, 0, start : start + m]
            block[:, n_head : n_head + len(stem)] = True
            block[:, n_head + start : n_head + start + m] = torch.ones(m, m, dtype=torch.bool).tril()
            where += [(row, len(stem) - 1 if t == 0 else start + t - 1, token) for t, token in enumerate(branch)]
            n += m
        allowed[row, 0, n:, n_head:] |= torch.eye(width, dtype=torch.bool)[n:]  # padding sees the prefix and itself
    mask = torch.where(allowed, 0.0, torch.finfo(lm.dtype).min).to(lm.dtype).to(lm.device)
    hidden = lm.hf.get_decoder()(
        ids.to(lm.device), attention_mask=mask, position_ids=(positions + n_head).to(lm.device),
        past_key_values=cache, use_cache=True,
    ).last_hidden_state  # fmt: skip
    rows, at, targets = (torch.tensor(x, device=lm.device) for x in zip(*where, strict=True))
    # the branches of a stem share the position that predicts their first token: read each position out once
    places, which = torch.unique(torch.stack([rows, at]), dim=1, return_inverse=True)
    logits = lm.head(hidden[places[0], places[1]]).float()
    flat = (logits[which, targets] - logits.logsumexp(-1)[which]).cpu()
    pieces = flat.split([len(b) for _, branches in trees for b in branches])
    counts = [len(branches) for _, branches in trees]
    return [list(pieces[sum(counts[:i]) : sum(counts[: i + 1])]) for i in range(len(counts))]
