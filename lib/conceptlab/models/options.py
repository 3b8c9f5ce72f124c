"""Log-probabilities of alternative continuations, with everything they share computed once.

A few-shot prefix is run once and kept as a key-value cache. Each tree `stem -> branches` then is ONE row: the
branches follow the stem and a tree-shaped attention mask keeps them from seeing each other, so a four-way question
costs about 30 token positions instead of four rows of the full prompt.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError
from .guards import reading, rewritten
from .language_model import LanguageModel
from .sites import Site

Tree = tuple[str, Sequence[str]]


@dataclass(frozen=True)
class Prefix:
    """A text that has been run already: its token ids, and their keys and values."""

    ids: tuple[int, ...]
    cache: object


@torch.no_grad()
def shared_prefix(lm: LanguageModel, text: str, after: Prefix | None = None) -> Prefix:
    """Run `text`, after another prefix if one is given: few-shot examples once, then each question once.

    The given prefix can be continued again. The pieces are tokenised one by one.
    """
    if after is None:
        ids = prefix_ids(lm, text)
        return Prefix(tuple(ids), prefix_cache(lm, ids))
    ids, cache = _ids(lm, text), repeated(after.cache, 1)
    lm.check_length(len(after.ids) + len(ids))
    lm.hf.get_decoder()(torch.tensor([ids], device=lm.device), past_key_values=cache, use_cache=True)
    return Prefix((*after.ids, *ids), cache)


@torch.no_grad()
def branch_logprobs(
    lm: LanguageModel, prefix: str | Prefix, trees: Sequence[Tree], batch_size: int = 32
) -> list[list[Float[Tensor, " n_tokens"]]]:
    """For each tree, for each branch: the log-probability of every token of the branch given prefix and stem.

    A prefix that serves several calls may be run beforehand (`shared_prefix`). Texts are tokenised piece by piece, so
    write pieces that begin at a token boundary (a leading space or newline). Spaces at the edges of a branch are not
    part of it: one in front stays (`as_branch`). Raises ConceptLabError for a piece without tokens, for texts beyond
    the context, and beyond a sliding attention window, since the tree-shaped mask stands for full attention.
    """
    results: list[list[Tensor]] = [[] for _ in trees]
    for chosen, rows, cache, n_head in _batches(lm, prefix, trees, batch_size):
        hidden, where, _ = _hidden(lm, rows, cache, n_head)
        for j, found in zip(chosen, _logprobs(lm, rows, hidden, where), strict=True):
            results[j] = found
    return results


@torch.no_grad()
def branch_states(
    lm: LanguageModel, prefix: str, trees: Sequence[Tree], sites: Sequence[Site], batch_size: int = 32
) -> dict[Site, list[Float[Tensor, "branches d"]]]:
    """For each site, for each tree: the activation at the last token of every branch, at the cost of one row a tree."""
    found: dict[Site, list] = {site: [None] * len(trees) for site in sites}
    for chosen, rows, cache, n_head in _batches(lm, prefix, trees, batch_size):
        seen: dict[Site, Tensor] = {}
        with lm.intervene({site: functools.partial(seen.__setitem__, site) for site in sites}):
            _, _, ends = _hidden(lm, rows, cache, n_head)
        for site, activation in seen.items():
            for row, j in enumerate(chosen):
                found[site][j] = activation[row, torch.tensor(ends[row], device=lm.device)].float().cpu()
    return found


def prefix_ids(lm: LanguageModel, prefix: str) -> list[int]:
    """Token ids of `prefix` with the model's start token, if it has one; of an empty prefix a start token alone."""
    start = lm.tokenizer.bos_token_id if lm.tokenizer.bos_token_id is not None else lm.tokenizer.eos_token_id
    return [*lm.start_ids, *lm.encode(prefix)] if prefix else [start]


def as_branch(text: str) -> str:
    """A continuation without the spaces at its edges, but for the first one in front: "  grass " is " grass".

    An option with a stray space would else be scored on a token that no text contains, several nats too low.
    """
    body = text.strip()
    return text[0] + body if body and text[0].isspace() else body


@torch.no_grad()
def prefix_cache(lm: LanguageModel, ids: Sequence[int]):
    """Keys and values of one row of token ids, to be continued by `repeated(cache, n)`."""
    from transformers import DynamicCache

    cache = DynamicCache(config=lm.hf.config)
    new = lm.check_ids(torch.tensor([list(ids)])).to(lm.device)
    lm.hf.get_decoder()(new, past_key_values=cache, use_cache=True)
    return cache


def repeated(cache, n: int):
    """A copy of a cache of one row for `n` rows; the original stays as it is when the copy is continued."""
    shared = copy.deepcopy(cache)
    shared.batch_repeat_interleave(n)
    return shared


def _batches(lm: LanguageModel, prefix: str | Prefix, trees: Sequence[Tree], batch_size: int) -> Iterator[tuple]:
    """(indices, encoded trees, the prefix' cache for as many rows, its length) of each batch of like length."""
    known = prefix if isinstance(prefix, Prefix) else shared_prefix(lm, prefix)
    head, cache = known.ids, known.cache
    encoded = [(rewritten(lm, _ids(lm, stem)), [_ids(lm, as_branch(b)) for b in branches]) for stem, branches in trees]
    if not all(branches for _, branches in encoded):
        raise ConceptLabError("A stem without branches was given; there is nothing to score behind it.")
    lm.check_length(len(head) + max((len(stem) + max(map(len, branches)) for stem, branches in encoded), default=0))
    window = getattr(lm.hf.config.get_text_config(), "sliding_window", None)
    longest = len(head) + max(map(_length, encoded), default=0)
    if window is not None and longest > window:
        raise ConceptLabError(f"{lm.name} attends to {window} tokens and a text has {longest}; shorten the prefix.")
    order = sorted(range(len(trees)), key=lambda i: _length(encoded[i]))  # rows of like length together
    for i in range(0, len(order), batch_size):
        chosen = order[i : i + batch_size]
        yield chosen, [encoded[j] for j in chosen], repeated(cache, len(chosen)), len(head)


def _ids(lm: LanguageModel, text: str) -> list[int]:
    ids = lm.encode(text)
    if not ids:
        raise ConceptLabError(f"The text {text!r} has no tokens; stems and branches need at least one.")
    return ids


def _length(tree: tuple[list[int], list[list[int]]]) -> int:
    return len(tree[0]) + sum(map(len, tree[1]))


def _hidden(lm: LanguageModel, trees: list, cache, n_head: int) -> tuple[Tensor, list, list]:
    """Final hidden states of one batch, where each branch token is predicted, and where each branch ends."""
    width = max(map(_length, trees))
    ids = torch.zeros(len(trees), width, dtype=torch.long)
    positions = torch.zeros_like(ids)
    allowed = torch.zeros(len(trees), 1, width, n_head + width, dtype=torch.bool)
    allowed[..., :n_head] = True
    where: list[tuple[int, int, int]] = []  # (row, position that predicts, target token) of every branch token
    ends: list[list[int]] = [[] for _ in trees]
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
            ends[row].append(n - 1)
        allowed[row, 0, n:, n_head:] |= torch.eye(width, dtype=torch.bool)[n:]  # padding sees the prefix and itself
    mask = torch.where(allowed, 0.0, torch.finfo(lm.dtype).min).to(lm.dtype).to(lm.device)
    stems = [stem for stem, _ in trees]
    asked = torch.arange(width) < torch.tensor([[len(stem)] for stem in stems])
    with reading(lm, stems, asked):
        hidden = lm.hf.get_decoder()(
            ids.to(lm.device), attention_mask=mask, position_ids=(positions + n_head).to(lm.device),
            past_key_values=cache, use_cache=True,
        ).last_hidden_state  # fmt: skip
    return hidden, where, ends


def _logprobs(lm: LanguageModel, trees: list, hidden: Tensor, where: list) -> list[list[Tensor]]:
    rows, at, targets = (torch.tensor(x, device=lm.device) for x in zip(*where, strict=True))
    # the branches of a stem share the position that predicts their first token: read each position out once
    places, which = torch.unique(torch.stack([rows, at]), dim=1, return_inverse=True)
    logits = lm.head(hidden[places[0], places[1]]).float()
    flat = (logits[which, targets] - logits.logsumexp(-1)[which]).cpu()
    pieces = flat.split([len(b) for _, branches in trees for b in branches])
    counts = [len(branches) for _, branches in trees]
    return [list(pieces[sum(counts[:i]) : sum(counts[: i + 1])]) for i in range(len(counts))]
