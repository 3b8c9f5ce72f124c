"""The output side put to the test: push the model along a direction and see which tokens rise.

The direction is added to the residual stream after a layer, at every position but the first, on a few neutral prompts;
what counts is the change of the next-token logits at the prompt's end, averaged over the prompts. Explainers and
scorers use different prompts. After Gur-Arieh et al. (arXiv 2501.08319), where a unit's effect is tested by steering.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core import ConceptLabError, Interval, auroc_interval
from ..models import LanguageModel
from .explain import Label

LABEL_PROMPTS = (
    "I went there because",
    "The most important thing is",
    "When we arrived, it was",
    "They said that the",
)


SCORE_PROMPTS = (
    "In my opinion, this",
    "After a while she looked at",
    "It is often said about the",
    "One day he found a",
    "The next part is about",
    "Some people think of",
)


@dataclass(frozen=True)
class SteerConfig:
    """How hard to push."""

    size: float = 1.0  # length of the added vector, in mean norms of the residual stream after the layer
    prompts: tuple[str, ...] = SCORE_PROMPTS
    batch_size: int = 48  # rows (directions times prompts) per forward pass


@torch.no_grad()
def steered_change(
    lm: LanguageModel, layer: int, directions: Float[Tensor, "n d_model"], cfg: SteerConfig = SteerConfig()
) -> Iterator[Float[Tensor, "part d_vocab"]]:
    """Mean change of the logits when the model is pushed along each direction (its length does not matter).

    Yields a few directions at a time, in order: all at once would be n times the vocabulary. The layers below are
    computed once. A direction of length 0 raises ConceptLabError.
    """
    layer = lm.check_layer(layer)
    if not len(directions):
        return
    norms = directions.norm(dim=1, keepdim=True)
    if not float(norms.min()) > 0:
        raise ConceptLabError("A direction of length 0 cannot be steered along; leave out dead units.")
    ids, mask = lm.tokens(list(cfg.prompts))
    resid = lm.capture(ids, [("resid_post", layer)], mask)["resid_post", layer]
    inner = mask.clone()
    inner[:, 0] = False
    size = cfg.size * resid[inner].float().norm(dim=1).mean()
    before = _final_logits(lm, layer, ids, mask, resid)
    pushes = (directions / norms).to(resid) * size.to(resid)
    for part in pushes.split(max(1, cfg.batch_size // len(cfg.prompts))):
        pushed = resid[None] + part[:, None, None, :] * inner[None, ..., None]
        n = len(part)
        after = _final_logits(lm, layer, ids.repeat(n, 1), mask.repeat(n, 1), pushed.flatten(0, 1))
        yield (after.view(n, len(ids), -1) - before).mean(1)


def _final_logits(lm: LanguageModel, layer: int, ids: Tensor, mask: Tensor, resid: Tensor) -> Tensor:
    """Logits at the last token of every row, with `resid` as the residual stream after `layer`."""
    with lm.skip_before(layer), lm.intervene({("resid_post", layer): lambda _: resid}):
        hidden = lm.final_hidden(ids, mask)
    last = mask.sum(1) - 1
    return lm.head(hidden[torch.arange(len(ids), device=hidden.device), last]).float()


def risen_tokens(
    lm: LanguageModel,
    layer: int,
    directions: Float[Tensor, "n d_model"],
    k: int = 8,
    cfg: SteerConfig = SteerConfig(prompts=LABEL_PROMPTS),
) -> Int[Tensor, "n k"]:
    """Ids of the tokens whose logits rise most when the model is pushed along each direction: "token change"."""
    parts = [part.topk(k).indices.cpu() for part in steered_change(lm, layer, directions, cfg)]
    return torch.cat([torch.zeros(0, k, dtype=torch.long), *parts])


def named_tokens(lm: LanguageModel, label: Label) -> list[int]:
    """Ids of the tokens that a label names: those it says are promoted, else those it lists at all."""
    ids = []
    for token in label.promotes or label.tokens:
        for form in (token, f" {token.strip()}"):  # some tokenizers' single tokens lose their space when read alone
            found = lm.encode(form) if form.strip() else []
            if len(found) == 1:
                ids.append(found[0])
                break
    return list(dict.fromkeys(ids))


@torch.no_grad()
def output_scores(
    lm: LanguageModel,
    layer: int,
    directions: Float[Tensor, "n d_model"],
    labels: Sequence[Label],
    cfg: SteerConfig = SteerConfig(),
    n_others: int = 20,
    n_resamples: int = 2_000,
    seed: int = 0,
) -> list[Interval | None]:
    """For each unit: do the tokens that its label names rise more than others when its direction is pushed? AUROC.

    Each named token is compared with tokens that the model gives nearly the same probability when it is left alone:
    `n_others` per named token, its neighbours in that order. 0.5 is chance. None for a label that names no
    single token. Pass the labels of other units for the shuffled control.
    """
    return output_tables(lm, layer, directions, [labels], cfg, n_others, n_resamples, seed)[0]


@torch.no_grad()
def output_tables(
    lm: LanguageModel,
    layer: int,
    directions: Float[Tensor, "n d_model"],
    tables: Sequence[Sequence[Label]],
    cfg: SteerConfig = SteerConfig(),
    n_others: int = 20,
    n_resamples: int = 2_000,
    seed: int = 0,
) -> list[list[Interval | None]]:
    """`output_scores` of several lists of labels for the same directions, each of which is pushed once."""
    if wrong := [labels for labels in tables if len(directions) != len(labels)]:
        raise ConceptLabError(f"One label per direction is needed; got {len(wrong[0])} for {len(directions)}.")
    place, order = _by_probability(lm, cfg)
    found: list[list[Interval | None]] = [[] for _ in tables]
    for part in steered_change(lm, layer, directions, cfg):
        for change in part.cpu():
            for labels, scores in zip(tables, found, strict=True):
                named = named_tokens(lm, labels[len(scores)])
                others = _neighbours(place, order, named, n_others)
                one = auroc_interval(change[named], change[others], n_resamples, seed) if named else None
                scores.append(one)
    return found


def _by_probability(lm: LanguageModel, cfg: SteerConfig) -> tuple[Tensor, Tensor]:
    """Rank of every token by its mean log-probability after the prompts, and the tokens in that order."""
    ids, mask = lm.tokens(list(cfg.prompts))
    logits = lm.logits(ids, mask)[torch.arange(len(ids)), mask.sum(1) - 1].float()
    order = logits.log_softmax(-1).mean(0).argsort(descending=True).cpu()
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    return place, order


def _neighbours(place: Tensor, order: Tensor, named: Sequence[int], n: int) -> list[int]:
    """Tokens next to the named ones in the order, `n` around each, no named one among them."""
    found: set[int] = set()
    for token in named:
        start = min(max(0, int(place[token]) - n // 2), max(0, len(order) - n - 1))
        found |= set(order[start : start + n + 1].tolist())
    return sorted(found - set(named))
