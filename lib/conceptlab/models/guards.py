"""The two ends of a forward pass, for methods that work at run time and leave the weights alone.

A guard may do three things, each of them on prompts:

    rewrite(prompt)            other token ids in place of a prompt's, before anything is run (notes, instructions)
    start(embeds, reading)     change the embeddings of the tokens that go in
    end(hidden, reading)       change the final hidden states, before the head makes logits of them

A `Reading` says what is being read: the prompt of every row, and which tokens of this pass belong to it. Scores of
alternatives (`options`) and continuations (`generation`) say so themselves, also where the prompt was run before and
only keys and values are left of it; any other pass over token ids counts as a pass over prompts. Passes that get
embeddings instead of token ids, and say nothing, are left alone: whoever computes with embeddings has the weights, and
walks around a guard anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .changes import Change

Prompt = tuple[int, ...]  # token ids


@dataclass(frozen=True)
class Reading:
    """What the rows of a pass are about."""

    prompts: tuple[Prompt, ...]  # one per row
    here: Bool[Tensor, "batch pos"]  # tokens of this pass that belong to the prompts


Start = Callable[[Float[Tensor, "batch pos d_model"], Reading], Tensor]
End = Callable[[Float[Tensor, "batch pos d_model"], Reading], Tensor]
Rewrite = Callable[[Prompt], Sequence[int]]


@dataclass
class Readers:
    """What a model's passes consult: prompts that were announced, and guards that rewrite them."""

    announced: Reading | None = None
    rewrites: list[Rewrite] = field(default_factory=list)
    busy: bool = False  # a guard is reading for itself: its own passes are not guarded


@contextmanager
def reading(lm: Any, prompts: Sequence[Sequence[int]], here: Bool[Tensor, "batch pos"]) -> Iterator[None]:
    """Inside the block passes have these prompts, one per row; `here` belongs to the pass of its shape."""
    before, lm.readers.announced = lm.readers.announced, Reading(tuple(map(tuple, prompts)), here)
    try:
        yield
    finally:
        lm.readers.announced = before


def rewritten(lm: Any, prompt: Sequence[int]) -> list[int]:
    """A prompt as the guards that are on want it read; its start token stays in front."""
    ids, start = list(prompt), lm.start_ids
    head = start if start and ids[: len(start)] == start else []
    body = ids[len(head) :]
    for rewrite in lm.readers.rewrites:
        body = list(rewrite(tuple(body)))
    return head + body


def guarded(
    lm: Any, what: str, start: Start | None = None, end: End | None = None, rewrite: Rewrite | None = None
) -> Change:
    """Inside the block the guard is on; the weights are not touched. `lm`: a LanguageModel."""

    def begin(change: Change) -> None:
        if rewrite is not None:
            change.then(lambda: lm.readers.rewrites.remove(rewrite))
            lm.readers.rewrites.append(rewrite)
        if start is None and end is None:
            return
        now: list[Reading | None] = []  # of the pass that runs

        def before(_module, args, kwargs):
            return None if lm.readers.busy else _enter(lm, args, kwargs, start, now)

        def after(_module, _args, output):
            found = None if lm.readers.busy else now[0]
            if end is not None and found is not None:
                output.last_hidden_state = end(output.last_hidden_state, found)
            return output

        decoder = lm.hf.get_decoder()
        change.then(decoder.register_forward_pre_hook(before, with_kwargs=True).remove)
        change.then(decoder.register_forward_hook(after).remove)

    return Change(lm, what, begin, weights=False)


def _enter(lm: Any, args: tuple, kwargs: dict, start: Start | None, now: list) -> tuple | None:
    """Find out what a pass reads, and change its embeddings."""
    ids = args[0] if args else kwargs.get("input_ids")
    now[:] = [found := _found(lm, ids, kwargs)]
    if start is None or found is None:
        return None
    embeds = kwargs.get("inputs_embeds")
    embeds = lm.embed(ids) if embeds is None else embeds
    changed = {k: v for k, v in kwargs.items() if k != "input_ids"} | {"inputs_embeds": start(embeds, found)}
    return args[1:] if args and ids is not None else args, changed


def _found(lm: Any, ids: Tensor | None, kwargs: dict) -> Reading | None:
    announced, embeds = lm.readers.announced, kwargs.get("inputs_embeds")
    shape = tuple(ids.shape) if ids is not None else tuple(embeds.shape[:2]) if embeds is not None else (0, 0)
    if announced is not None and len(announced.prompts) == shape[0]:
        same = tuple(announced.here.shape) == shape
        here = announced.here if same else torch.zeros(shape, dtype=torch.bool)
        return Reading(announced.prompts, here.to(lm.device))
    if ids is None:
        return None
    mask = kwargs.get("attention_mask")
    real = mask.bool() if mask is not None and tuple(mask.shape) == shape else torch.ones_like(ids, dtype=torch.bool)
    prompts = tuple(tuple(row[keep].tolist()) for row, keep in zip(ids, real.to(ids.device), strict=True))
    return Reading(prompts, real.to(lm.device))


@contextmanager
def unguarded(lm: Any) -> Iterator[None]:
    """Inside the block passes are a guard's own and meet none."""
    before, lm.readers.busy = lm.readers.busy, True
    try:
        yield
    finally:
        lm.readers.busy = before
