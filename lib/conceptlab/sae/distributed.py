"""Data-parallel training: the processes that `accelerate launch` or `torchrun` start, seen as one.

Every process holds the whole dictionary and takes its slice of each global batch. Gradients are averaged, and so is
all that a loss divides by or compares with (variance of the batch, cut of BatchTopK, which features fired), so that
the loss curve is that of one process with the same global batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, distributed, nn

from ..core import ConceptLabError


@dataclass(frozen=True)
class World:
    """This process among those that train together. With size 1 every method gives back what it got."""

    rank: int = 0  # 0 prints, saves and downloads
    size: int = 1

    def mean(self, x: Tensor) -> Tensor:
        """Mean over the processes; not differentiable. `x` is left alone."""
        if self.size == 1:
            return x
        x = x.detach().clone()
        distributed.all_reduce(x)
        return x / self.size

    def any(self, mask: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Where the mask of any process is True."""
        if self.size == 1:
            return mask
        counts = mask.int()
        distributed.all_reduce(counts)
        return counts > 0

    def gather(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "all ..."]:
        """The rows of all processes, in the order of their ranks. All hold the same number."""
        if self.size == 1:
            return x
        parts = [torch.empty_like(x) for _ in range(self.size)]
        distributed.all_gather(parts, x.detach().contiguous())
        return torch.cat(parts)

    def share(self, batch: np.ndarray) -> np.ndarray:
        """This process's slice of a global batch. Raises ConceptLabError when it cannot be shared equally."""
        if len(batch) % self.size:
            raise ConceptLabError(
                f"A batch of {len(batch)} tokens cannot be shared equally by {self.size} processes; "
                "choose a batch size that is a multiple of their number."
            )
        n = len(batch) // self.size
        return batch[self.rank * n : (self.rank + 1) * n]

    def average_gradients(self, module: nn.Module) -> None:
        """Replace every gradient by its mean over the processes, in one message."""
        if self.size == 1:
            return
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        flat = self.mean(torch.cat([g.flatten() for g in grads]))
        for grad, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            distributed.barrier()

    @contextmanager
    def first(self) -> Iterator[None]:
        """Process 0 does the block before the others do: downloads and conversions into a shared cache."""
        if self.rank > 0:
            self.barrier()
        yield
        if self.rank == 0:
            self.barrier()


SOLO = World()


def join() -> World:
    """The world this process was started in: `RANK` and `WORLD_SIZE` of a launcher, else one process alone.

    CUDA: each process takes the device `LOCAL_RANK`, and NCCL carries the messages; on a CPU it is gloo. Without a GPU
    start with `torchrun --nproc_per_node N` or `accelerate launch --multi_gpu --num_processes N`: accelerate's `--cpu`
    starts several processes through MPI only, and otherwise just one.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        return SOLO
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if cuda else "gloo")
    return World(distributed.get_rank(), size)


def leave(world: World) -> None:
    """End the work of `join`."""
    if world.size > 1 and distributed.is_initialized():
        distributed.destroy_process_group()
