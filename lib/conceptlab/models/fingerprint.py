"""Which weights are these? A fingerprint that no name or path enters."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

RUN = 127  # numbers of eight bytes in one sum
CHUNK = 4096  # sums at a time: a buffer of 4 MB
WHOLE = 1 << 16  # tensors of at most so many bytes (gains, biases) are read byte by byte
_AS_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.no_grad()
def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits that depend on the names, shapes, types and bits of some tensors.

    The bits of each tensor, eight bytes at a time, are summed over runs of `RUN` with a weight for each place (modulo
    2^64), and the sums are hashed in their order: every bit enters, and so does its place, so that the same values on
    permuted neurons are another tensor. Takes 0.1 s for 135 M float32 numbers on a CPU core.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        x = tensors[name].detach()
        digest.update(f"{name} {tuple(x.shape)} {x.dtype}\n".encode())
        bits = x.contiguous().flatten().view(_AS_INTEGERS[x.element_size()])
        if bits.numel() * bits.element_size() > WHOLE:
            if bits.numel() * bits.element_size() % 8 == 0 and bits.storage_offset() * bits.element_size() % 8 == 0:
                bits = bits.view(torch.int64)
            whole = bits.numel() - bits.numel() % RUN
            digest.update(_sums(bits[:whole].view(-1, RUN)).cpu().numpy().tobytes())
            bits = bits[whole:]
        digest.update(bits.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _sums(runs: Tensor) -> Tensor:
    """Weighted sum of each run, in 64-bit integers that wrap around."""
    places = torch.arange(1, RUN + 1, dtype=torch.int64, device=runs.device)
    weights = places * -7046029254386353131 | 1  # 2^64 / golden ratio: spread over all bits, odd
    buffer = torch.empty(CHUNK, RUN, dtype=torch.int64, device=runs.device)  # reused: no page faults
    return torch.cat([torch.mul(part, weights, out=buffer[: len(part)]).sum(1) for part in runs.split(CHUNK)])
