"""Coherence of a list of tokens: do the words of a vocabulary projection belong together?

A score from the weights alone, without a judge model: mean cosine of whitened token embeddings, variants of one word
counted once. Whether it means anything is for a control with random vectors to say.
"""

from __future__ import annotations

import re
from collections import Counter

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..data import vital_articles
from ..models import LanguageModel

_STEM = 5  # letters by which variants of one word are recognised: cancer, cancers, cancerous


# ---- words ----------------------------------------------------------------------------------------------
def plain_words(lm: LanguageModel, min_count: int = 3, skip_common: int = 0) -> Int[Tensor, " m"]:
    """Ids of tokens that are whole words: a space, then three or more letters (lower case but for the first).

    The word must occur `min_count` times in the course's encyclopedia; its `skip_common` most frequent words, which
    are nearly all function words, are left out.
    """
    counts = Counter(word for article in vital_articles() for word in re.findall(r"[a-z]+", article.text.lower()))
    common = {word for word, _ in counts.most_common(skip_common)}
    found = []
    for i, token in enumerate(lm.words(range(lm.d_vocab))):
        word = token[1:].lower()
        if re.fullmatch(r" [A-Za-z][a-z]{2,}", token) and counts[word] >= min_count and word not in common:
            found.append(i)
    return torch.tensor(found)


def token_stems(lm: LanguageModel) -> Int[Tensor, " d_vocab"]:
    """A number per token, the same for case variants and for words that share their first five letters."""
    numbers: dict[str, int] = {}
    keys = lm.words(range(lm.d_vocab))
    keys = [re.sub(r"[^a-z]", "", key.lower())[:_STEM] or key for key in keys]
    return torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys])


def first_of_stem(ids: Int[Tensor, "n k"], stem: Int[Tensor, " d_vocab"], m: int | None = None) -> Bool[Tensor, "n k"]:
    """`[n, k]` bool: the first `m` tokens of each list whose stem has not occurred before in that list."""
    s, k = stem[ids], ids.shape[1]
    earlier = torch.ones(k, k, dtype=torch.bool).tril(-1)
    keep = ~((s[:, :, None] == s[:, None, :]) & earlier).any(-1)
    return keep if m is None else keep & (keep.cumsum(1) <= m)


# ---- coherence ------------------------------------------------------------------------------------------
def unit_embeddings(
    lm: LanguageModel, vocab_ids: Int[Tensor, " m"] | None = None, whiten: bool = True
) -> Float[Tensor, "d_vocab d_model"]:
    """Unembedding rows, centred, whitened (unless told not to) and scaled to length 1.

    With `vocab_ids` only those rows are used for mean and covariance, and all others are zero. Whitening matters:
    token embeddings crowd in a few directions, so without it the top tokens of any direction, a random one too, look
    alike.
    """
    rows = lm.unembedding_rows().float()
    base = rows if vocab_ids is None else rows[vocab_ids.to(rows.device)]
    centred = base - base.mean(0)
    if whiten:
        values, basis = torch.linalg.eigh(torch.cov(base.T))
        centred = centred @ (basis * values.clamp_min(1e-6 * values.max()).rsqrt())
    units = F.normalize(centred, dim=1)
    return units if vocab_ids is None else torch.zeros_like(rows).index_copy_(0, vocab_ids.to(rows.device), units)


def coherence(
    ids: Int[Tensor, "n k"],
    units: Float[Tensor, "d_vocab d_model"],
    stem: Int[Tensor, " d_vocab"],
    m: int = 15,
) -> Float[Tensor, " n"]:
    """Mean pairwise cosine of the first `m` tokens of each list that are no variants of one another.

    `units` are unit vectors (`unit_embeddings`), `stem` says which tokens are variants (`token_stems`). With n unit
    vectors u and S their sum, the mean over pairs is (|S|^2 - n) / (n (n - 1)). Lists of fewer than 2 stems score 0.
    """
    scores = []
    for part in ids.split(4096):
        keep = first_of_stem(part, stem, m)
        n = keep.sum(1).float()
        total = F.embedding_bag(part.to(units.device), units, mode="sum", per_sample_weights=keep.to(units)).cpu()
        scores.append((total.square().sum(1) - n) / (n * (n - 1)).clamp_min(1))
    return torch.cat(scores)
