"""From which layer on does a model know a fact? The memorised layer of a question, read through the logit lens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core import Interval, correlation_interval
from ..data import FEW_SHOT, Question, question_stem
from ..models import LanguageModel, branch_states
from .tokens import Lens


def separable(lm: LanguageModel, questions: Sequence[Question]) -> list[Question]:
    """Questions whose right answer begins with another token than every wrong one: one reading tells them apart."""
    return [q for q in questions if _first(lm, q.gold) not in {_first(lm, o) for o in q.options if o != q.gold}]


@torch.no_grad()
def right_at_layers(
    lm: LanguageModel, questions: Sequence[Question], lens: Lens | None = None, few_shot: str = FEW_SHOT
) -> Bool[Tensor, "n layers"]:
    """Whether the right answer's first token leads its rivals', read after every layer at the end of the question."""
    lens = lens or Lens(lm.final_gain().float())
    stems = [question_stem(q, few_shot) for q in questions]
    trees = [(stem[:-1], [stem[-1]]) for stem in stems]  # the colon of "Answer:" is a token of its own
    sites = [("resid_post", layer) for layer in range(lm.n_layers)]
    states = branch_states(lm, few_shot, trees, sites)
    rows, found = lm.unembedding_rows(), torch.zeros(len(questions), lm.n_layers, dtype=torch.bool)
    for i, q in enumerate(questions):
        ids = torch.tensor([_first(lm, o) for o in (q.gold, *(o for o in q.options if o != q.gold))])
        read = torch.cat([lens.final(states[site][i].to(lm.device), site[1]) for site in sites])
        scores = read.to(rows.dtype) @ rows[ids.to(rows.device)].T  # [layers, options], the right one first
        found[i] = (scores[:, :1] > scores[:, 1:]).all(1).cpu()
    return found


def centre_of_loss(losses: Float[Tensor, "n layers"]) -> Float[Tensor, " n"]:
    """Mean layer (from 1), weighted by what an edit in that layer costs; gains count as 0, no loss at all as NaN."""
    weight = losses.clamp_min(0)
    layers = torch.arange(1, losses.shape[1] + 1, dtype=weight.dtype)
    return (weight @ layers) / weight.sum(1)


def rank_correlation(
    a: Float[Tensor, " n"], b: Float[Tensor, " n"], groups: Int[Tensor, " n"] | None = None, seed: int = 0
) -> Interval:
    """Spearman's rho with an interval over resamples of items, or of whole `groups` (ranks of ties are averaged)."""
    groups = torch.arange(len(a)) if groups is None else groups
    return correlation_interval(ranks(a), ranks(b), groups, seed=seed)


def ranks(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Ranks from 0, ties averaged."""
    values = values.double()
    ordered = values.sort().values
    below = torch.searchsorted(ordered, values)
    return (below + torch.searchsorted(ordered, values, right=True) - 1) / 2


def _first(lm: LanguageModel, option: str) -> int:
    return lm.encode(f" {option.strip()}")[0]
