"""Texts run through the model once: activations at some sites, the first position of each text left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..models import LanguageModel, Site
from .rows import check_n_ctx, check_texts

Encode = Callable[[Float[Tensor, "batch pos d_in"]], Float[Tensor, "batch pos d"]]


class Pass(NamedTuple):
    """One batch of texts of like length."""

    which: list[int]  # of the texts
    ids: Int[Tensor, "batch pos"]
    keep: Bool[Tensor, "batch pos"]  # neither padding nor the first position, an attention sink
    found: dict[Site, Tensor]  # site -> [batch, pos, d]


@torch.no_grad()
def text_passes(
    lm: LanguageModel, texts: Sequence[str], sites: Sequence[Site], n_ctx: int = 96, batch_size: int = 16
) -> Iterator[Pass]:
    """The activations of all texts, shortest first, each cut to `n_ctx` tokens."""
    check_texts(texts)
    check_n_ctx(n_ctx, lm)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for i in range(0, len(order), batch_size):
        index = order[i : i + batch_size]
        ids, mask = lm.tokens([texts[j] for j in index], n_ctx)
        found = lm.capture(ids, list(sites), mask)
        keep = mask.clone()
        keep[:, 0] = False
        yield Pass(index, ids, keep, found)


@torch.no_grad()
def text_means(
    lm: LanguageModel,
    texts: Sequence[str],
    sites: Sequence[Site],
    encode: Mapping[Site, Encode] | None = None,
    n_ctx: int = 96,
    batch_size: int = 16,
) -> dict[Site, Float[Tensor, "texts d"]]:
    """Mean activation of each text at each site, float32 on the CPU, in the order of `texts`.

    The first position does not count; a text of one token has the mean 0. `encode[site]` is applied to the activations
    (a dictionary's encoder) before the mean.
    """
    means: dict[Site, list[Tensor]] = {site: [] for site in sites}
    order: list[int] = []
    for batch in text_passes(lm, texts, sites, n_ctx, batch_size):
        order += batch.which
        counts = batch.keep.sum(1, keepdim=True).clamp_min(1).cpu()
        for site in sites:
            acts = batch.found[site].float()
            acts = acts if encode is None else encode[site](acts)
            means[site].append((acts * batch.keep[..., None]).sum(1).cpu() / counts)
    back = torch.tensor(order).argsort()
    return {site: torch.cat(parts)[back] for site, parts in means.items()}
