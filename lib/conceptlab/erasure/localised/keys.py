"""Neuron activations at the concept's words and elsewhere: the keys that a closed form sends to new values.

An MLP writes `W n`, `n` the activations of its neurons and `W` the down projection: a linear memory with keys `n` and
values `W n` (Geva et al. 2021; Meng et al. 2022, section 3). A fact about a subject is looked up in early layers at
the *last token* of the subject's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...core import NotPossible
from ...data import text_passes
from ...models import LanguageModel

if TYPE_CHECKING:
    from ..shared import Shared

DEPTHS = (0.1, 0.17, 0.24)  # of the layers that are edited: 3, 5 and 7 of SmolLM2's 30


def early_layers(n_layers: int, depths: Sequence[float] = DEPTHS) -> tuple[int, ...]:
    """The layers at these shares of the depth of a model with so many, each once."""
    return tuple(sorted({round(depth * (n_layers - 1)) for depth in depths}))


def subject_ends(
    lm: LanguageModel, ids: Int[Tensor, "batch pos"], words: Sequence[str]
) -> tuple[Bool[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """Where one of the words ends, and which (its place in `words`; -1 elsewhere). Words may be several tokens."""
    which = torch.full_like(ids, -1)
    forms = [(place, form) for place, word in enumerate(words) for form in (f" {word.strip()}", word.strip())]
    for (place, _), row in zip(forms, lm.encode_all(form for _, form in forms), strict=True):
        if len(row) > ids.shape[1]:
            continue
        found = (ids.unfold(1, len(row), 1) == torch.tensor(row, device=ids.device)).all(-1)
        which[:, len(row) - 1 :][found] = place
    return which >= 0, which


@dataclass(frozen=True)
class Keys:
    """Neuron activations of one layer: means per word of the concept, and all tokens of the texts to keep."""

    own: Float[Tensor, "n d_mlp"]  # one row for each word of the concept that occurs, at its last token
    kept: Float[Tensor, "m d_mlp"]  # every token of texts on the neighbour and on neither

    @property
    def moment(self) -> Float[Tensor, "d_mlp d_mlp"]:
        """Mean of `k k^T` over the keys to keep, in float64: in float32 its null space would be lost in rounding."""
        kept = self.kept.double()
        return kept.T @ kept / len(kept)


@torch.no_grad()
def gather_keys(
    lm: LanguageModel, forget: Sequence[str], keep: Sequence[str], words: Sequence[str], layers: Sequence[int], n_ctx=48
) -> dict[int, Keys]:
    """layer -> keys, in one pass over the texts; the first position of a text, an attention sink, is left out.

    Raises NotPossible where none of the words stands in the texts to forget.
    """
    sites = [("neurons", layer) for layer in layers]
    total = {layer: torch.zeros(len(words), lm.d_mlp, device=lm.device) for layer in layers}
    count = torch.zeros(len(words), device=lm.device)
    for batch in text_passes(lm, forget, sites, n_ctx):
        at, which = subject_ends(lm, batch.ids, words)
        at &= batch.keep
        count.index_add_(0, which[at], torch.ones_like(which[at], dtype=count.dtype))
        for layer in layers:
            total[layer].index_add_(0, which[at], batch.found["neurons", layer][at].float())
    seen = count > 0
    if not bool(seen.any()):
        raise NotPossible(f"None of {list(words)[:5]} stands in the texts to forget, so there is no key to redirect.")
    kept: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for batch in text_passes(lm, keep, sites, n_ctx):
        for layer in layers:
            kept[layer].append(batch.found["neurons", layer][batch.keep].float())
    return {x: Keys(total[x][seen] / count[seen, None], torch.cat(kept[x])) for x in layers}


def shared_keys(shared: Shared, layers: Sequence[int]) -> dict[int, Keys]:
    """The keys of a concept, gathered once for these layers from the texts to forget and to keep."""
    lm, words = shared.lm, shared.concept.words
    return shared.made(
        ("keys", tuple(layers)), lambda: gather_keys(lm, shared.forget, shared.keep, words, tuple(layers))
    )


def answer_logprob(
    lm: LanguageModel, ids: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"], answer: Bool[Tensor, "batch pos"]
) -> Float[Tensor, ""]:
    """Summed log-probability of the tokens in `answer` (nats), with gradients where they are on."""
    hidden = lm.final_hidden(ids, mask)[:, :-1][answer[:, 1:]]
    return lm.head(hidden).float().log_softmax(-1).gather(1, ids[:, 1:][answer[:, 1:]][:, None]).sum()


@torch.no_grad()
def mean_states(
    lm: LanguageModel, forget: Sequence[str], keep: Sequence[str], words: Sequence[str], kind="resid_post", n_ctx=48
) -> tuple[Float[Tensor, "layers d"], Float[Tensor, "layers d"]]:
    """Mean activation at a site of every layer: at the concept's words in some texts, and at all tokens of others.

    Raises NotPossible where none of the words stands in the texts to forget.
    """
    sites, means = [(kind, layer) for layer in range(lm.n_layers)], []
    for texts, at_words in ((forget, True), (keep, False)):
        total, n = torch.zeros(1), 0
        for batch in text_passes(lm, texts, sites, n_ctx):
            at = batch.keep & subject_ends(lm, batch.ids, words)[0] if at_words else batch.keep
            found = torch.stack([batch.found[site][at].float().sum(0) for site in sites])
            total = total.to(found) + found
            n += int(at.sum())
        if not n:
            raise NotPossible(f"None of {list(words)[:5]} stands in the texts to forget, so it has no direction.")
        means.append(total / n)
    return means[0], means[1]
