"""How many deletions a system of slices absorbs before it has to be trained again, by simulation.

Requests hit slices drawn at random, none twice. A copy serves the slices that stand before its first deleted one
(`Sliced.without`); a shard serves its best copy; the system has to be trained again once no shard serves anything.
SISA (Bourtoule et al., arXiv 1912.03817) keeps one order of slices per shard, since a checkpoint of the whole model is
dear; adapters are small, so that S3T keeps several orders. With one shard and B rotations of L slices the count is the
largest of B places drawn out of L: B (L + 1) / (B + 1) on average, and (L + 1) / 2 for SISA.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core import ConceptLabError, Interval, bootstrap


@dataclass(frozen=True)
class Deletions:
    """What many random sequences of requests did to a system."""

    until: Interval  # deletions absorbed until it has to be trained again, the last one included
    counts: Int[Tensor, " runs"]
    served: Float[Tensor, " slices"]  # mean share of all slices still served after 1, 2, ... deletions


def rotations(n_slices: int, n_orders: int) -> list[tuple[int, ...]]:
    """`n_orders` orders of the slices, each beginning with another one, spread evenly."""
    if not 1 <= n_orders <= n_slices:
        raise ConceptLabError(f"{n_slices} slices have 1 to {n_slices} rotations; got {n_orders}.")
    firsts = [i * n_slices // n_orders for i in range(n_orders)]
    return [tuple((first + i) % n_slices for i in range(n_slices)) for first in firsts]


def deletions_until_retraining(
    n_slices: int, n_orders: int = 1, n_shards: int = 1, n_runs: int = 2_000, seed: int = 0
) -> Deletions:
    """Simulate `n_runs` sequences of requests on `n_shards` shards of `n_slices` slices, each in `n_orders` copies.

    `n_orders` 1: SISA; more: S3T. Raises ConceptLabError for numbers below 1 and for more orders than slices.
    """
    if min(n_slices, n_shards, n_runs) < 1:
        raise ConceptLabError(f"Slices, shards and runs are at least 1; got {n_slices}, {n_shards} and {n_runs}.")
    orders = torch.tensor(rotations(n_slices, n_orders))
    total, generator = n_slices * n_shards, torch.Generator().manual_seed(seed)
    # when[r, s]: the request that hits slice s in run r
    when = torch.stack([torch.randperm(total, generator=generator) for _ in range(n_runs)])
    when = when.view(n_runs, n_shards, n_slices)
    alive = when[:, :, orders].cummin(-1).values  # [runs, shards, orders, slices]: until when each place is served
    counts = alive[..., 0].amax((1, 2)) + 1
    served = [
        (alive > request).sum(-1).amax(2).sum(1).double().mean() / total for request in range(total)
    ]  # after requests 0 to `request`
    return Deletions(bootstrap(counts.double(), over="sequences of requests"), counts, torch.stack(served).float())
