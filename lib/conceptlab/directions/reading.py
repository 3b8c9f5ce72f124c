"""Directions between two kinds of items, and how well they tell items apart that they were not found on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core import ConceptLabError, Interval, auroc, auroc_draws, draws_interval
from ..data import ContrastItem
from .states import ItemStates

Fit = Callable[[Float[Tensor, "layers n d"], Bool[Tensor, " n"]], Float[Tensor, "layers d"]]


class Split(NamedTuple):
    """Items that a direction is found on, and items that it is tested on."""

    train: Bool[Tensor, " n"]
    test: Bool[Tensor, " n"]


def mean_difference(x: Float[Tensor, "layers n d"], positive: Bool[Tensor, " n"]) -> Float[Tensor, "layers d"]:
    """Mean of the positive items minus mean of the others, per layer (2503.23084: the linear reasoning feature)."""
    if not bool(positive.any()) or bool(positive.all()):
        raise ConceptLabError("A direction needs items of both kinds; one kind is missing.")
    weight = torch.where(positive, 1 / positive.sum(), -1 / (~positive).sum())
    return (weight.double() @ x.double()).to(x.dtype)


def ridge(
    x: Float[Tensor, "layers n d"], positive: Bool[Tensor, " n"], penalty: float = 0.1
) -> Float[Tensor, "layers d"]:
    """The ridge classifier on standardised numbers: what a linear reading can get if it is fitted, not only averaged.

    `penalty`: times the mean variance. Solved over items, of which there are fewer than words.
    """
    y = torch.where(positive, 1.0, -1.0).double()
    out = torch.empty(len(x), x.shape[2], dtype=x.dtype)
    for layer, states in enumerate(x.double()):
        spread = states.std(0)
        scale = torch.where(spread > 1e-9, 1 / spread.clamp_min(1e-9), 0.0)
        z = (states - states.mean(0)) * scale
        gram = z @ z.T
        size = gram.diagonal().mean().clamp_min(1e-9)
        dual = torch.linalg.solve(gram + penalty * size * torch.eye(len(z)).double(), y - y.mean())
        out[layer] = ((dual @ z) * scale).to(x.dtype)
    return out


@dataclass(frozen=True)
class Contrast:
    """A set of two kinds with what is held out in it."""

    states: ItemStates
    positive: Bool[Tensor, " n"]
    splits: Sequence[Split]

    @property
    def items(self) -> tuple[ContrastItem, ...]:
        return self.states.items

    @property
    def groups(self) -> list[int]:
        return [item.group for item in self.items]

    @property
    def direction(self) -> Float[Tensor, "layers d_model"]:
        """The mean difference over all of its items."""
        return mean_difference(self.states.resid, self.positive)


# ---- what is held out -----------------------------------------------------------------------------------------
def halves(items: Sequence[ContrastItem], seed: int = 0) -> list[Split]:
    """Two halves of every template in turn; the three stories that share their people stay together."""
    places = [(i.template, i.group // 3 if i.text.startswith("Story:") else i.group) for i in items]
    generator, first = torch.Generator().manual_seed(seed), set()
    for template in dict.fromkeys(name for name, _ in places):
        known = sorted({place for place in places if place[0] == template})
        order = torch.randperm(len(known), generator=generator).tolist()
        first |= {known[i] for i in order[: len(known) // 2]}
    half = torch.tensor([place in first for place in places])
    return [Split(half, ~half), Split(~half, half)]


def by_template(items: Sequence[ContrastItem]) -> list[Split]:
    """Each template in turn is held out, and the direction found on all others: no sentence of it was seen."""
    masks = _templates(items)
    if len(masks) < 2:
        raise ConceptLabError("Holding a template out needs items of at least two templates.")
    return [Split(~mask, mask) for mask in masks]


def inside_template(items: Sequence[ContrastItem], seed: int = 0) -> list[Split]:
    """Each template alone, one half of its stories for the other: wording may help."""
    pairs = halves(items, seed)
    return [Split(mask & s.train, mask & s.test) for mask in _templates(items) for s in pairs]


def _templates(items: Sequence[ContrastItem]) -> list[Tensor]:
    names = [item.template for item in items]
    return [torch.tensor([name == one for name in names]) for one in dict.fromkeys(names)]


def held_out(
    x: Float[Tensor, "layers n d"], positive: Bool[Tensor, " n"], splits: Sequence[Split], fit: Fit = mean_difference
) -> Float[Tensor, "layers n"]:
    """The projection of every item on a direction that was found without it; items of no test part are NaN."""
    scores = torch.full(x.shape[:2], torch.nan)
    for split in splits:
        d = fit(x[:, split.train], positive[split.train])
        scores[:, split.test] = (x[:, split.test].double() @ d.double()[..., None])[..., 0].float()
    return scores


# ---- how well ---------------------------------------------------------------------------------------------------
def split_draws(
    scores: Float[Tensor, " n"],
    positive: Bool[Tensor, " n"],
    splits: Sequence[Split],
    groups: Sequence[int],
    n_resamples: int = 1_000,
    seed: int = 0,
) -> Float[Tensor, " draws"]:
    """Mean over splits of the AUROC on the test part, then the same on resamples of the stories (`groups`).

    Directions of different splits have scales of their own, so items are compared within a split only.
    """
    story = torch.tensor(list(groups))
    parts = [
        auroc_draws(scores[s.test], positive[s.test], story[s.test], n_resamples, seed + i)
        for i, s in enumerate(splits)
    ]
    return torch.stack(parts).mean(0)


def split_auroc(
    scores: Float[Tensor, "layers n"],
    positive: Bool[Tensor, " n"],
    splits: Sequence[Split],
    groups: Sequence[int],
    n_resamples: int = 1_000,
) -> list[Interval]:
    """AUROC of every layer, averaged over splits, with its interval over stories."""
    n = len(set(groups))
    draws = (split_draws(s, positive, splits, groups, n_resamples) for s in scores)
    return [draws_interval(d, n) for d in draws]


def chosen_elsewhere(
    scores: Float[Tensor, "layers n"], positive: Bool[Tensor, " n"], splits: Sequence[Split]
) -> Float[Tensor, " n"]:
    """Held-out scores of every split at the layer that is best on the *other* splits, so that no test chooses."""
    areas = torch.tensor(
        [[a.value for a in split_auroc(scores, positive, [s], list(range(len(positive))), 2)] for s in splits]
    )
    out = torch.full_like(scores[0], torch.nan)
    for i, split in enumerate(splits):
        others = torch.cat([areas[:i], areas[i + 1 :]])
        out[split.test] = scores[int(others.mean(0).argmax()), split.test]
    return out


def shuffled_limit(
    x: Float[Tensor, "layers n d"],
    positive: Bool[Tensor, " n"],
    splits: Sequence[Split],
    n_shuffles: int = 100,
    seed: int = 0,
) -> Float[Tensor, " layers"]:
    """The control: the AUROC, or 1 minus it, that 95 of 100 directions of shuffled labels do not exceed.

    Labels are shuffled where the direction is found and kept where it is tested. Kinds that lie far apart are told
    apart by almost every direction, so this may be near 1.
    """
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(len(x), n_shuffles)
    for split in splits:
        y = positive[split.train]
        orders = torch.stack([torch.randperm(len(y), generator=generator) for _ in range(n_shuffles)])
        weight = torch.where(y[orders], 1 / y.sum(), -1 / (~y).sum())
        test = positive[split.test]
        for layer in range(len(x)):
            scores = x[layer, split.test] @ (weight @ x[layer, split.train]).T
            total[layer] += auroc(scores, test) / len(splits)
    return torch.maximum(total, 1 - total).quantile(0.95, dim=1)


def direction_cosines(a: Float[Tensor, "layers d"], b: Float[Tensor, "layers d"]) -> Float[Tensor, " layers"]:
    """Cosine of two directions in every layer."""
    return torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=-1).float()


def cosine_draws(
    x: Float[Tensor, "layers n d"],
    x_positive: Bool[Tensor, " n"],
    z: Float[Tensor, "layers m d"],
    z_positive: Bool[Tensor, " m"],
    n_draws: int = 200,
    seed: int = 0,
    shuffle: bool = False,
) -> Float[Tensor, "draws layers"]:
    """Cosine of the two sets' directions, over resamples of both sets' items; or, the control, with labels shuffled."""
    generator = torch.Generator().manual_seed(seed)
    sides = [_drawn(data, y, n_draws, generator, shuffle) for data, y in ((x, x_positive), (z, z_positive))]
    return torch.nn.functional.cosine_similarity(sides[0], sides[1], dim=-1).T


def _drawn(x: Tensor, y: Tensor, n_draws: int, generator: torch.Generator, shuffle: bool) -> Tensor:
    """`[layers, draws, d]`: mean differences of resamples of each kind, or of shuffled labels."""
    weights = torch.zeros(n_draws, len(y))
    for row in weights:
        if shuffle:
            dealt = y[torch.randperm(len(y), generator=generator)]
            row += torch.where(dealt, 1 / y.sum(), -1 / (~y).sum())
        else:
            for mask, sign in ((y, 1.0), (~y, -1.0)):
                at = mask.nonzero()[:, 0]
                picks = at[torch.randint(len(at), (len(at),), generator=generator)]
                row.index_add_(0, picks, torch.full((len(at),), sign / len(at)))
    return weights @ x.float()


def on_plane(x: Float[Tensor, "n d"], k: int = 2) -> tuple[Float[Tensor, "n k"], Float[Tensor, "k d"]]:
    """Places of items on their first `k` principal directions, and these directions (of length 1)."""
    centred = x.double() - x.double().mean(0)
    _, _, V = torch.linalg.svd(centred, full_matrices=False)
    return (centred @ V[:k].T).float(), V[:k].float()


def equally_hard(
    margin: Float[Tensor, " n"], positive: Bool[Tensor, " n"], parts: Sequence[str], tolerance: float = 0.5
) -> Bool[Tensor, " n"]:
    """The largest choice of items in which both kinds have pairwise the same margin, within `tolerance` nats.

    `parts`: template of each item; pairs are made within it, greedily along the sorted margins.
    """
    keep = torch.zeros(len(margin), dtype=torch.bool)
    for part in dict.fromkeys(parts):
        here = torch.tensor([p == part for p in parts])
        found = [(here & side).nonzero()[:, 0] for side in (positive, ~positive)]
        left, right = (at[margin[at].argsort()].tolist() for at in found)
        while left and right:
            gap = float(margin[left[0]] - margin[right[0]])
            if abs(gap) <= tolerance:
                keep[[left.pop(0), right.pop(0)]] = True
            else:
                (left if gap < 0 else right).pop(0)
    return keep
