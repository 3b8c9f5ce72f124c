"""Which weights are these? A fingerprint that no name or path enters."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

RUN = 127  # numbers of eight bytes that are summed together; a prime, so that runs never line up with a weight's rows
WHOLE = 1 << 16  # tensors of at most so many bytes (gains, biases) are read byte by byte
_AS_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.no_grad()
def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits that depend on the names, shapes, types and bits of some tensors.

    The bits of each tensor, eight bytes at a time, are summed over runs of `RUN`, and the sums are hashed in their
    order: every bit enters, and neurons that are permuted or rows that are exchanged come into other runs. Takes about
    0.1 s for 135 M float32 numbers on a CPU core.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        x = tensors[name].detach()
        digest.update(f"{name} {tuple(x.shape)} {x.dtype}\n".encode())
        bits = x.contiguous().flatten().view(_AS_INTEGERS[x.element_size()])
        n_bytes = bits.numel() * bits.element_size()
        if n_bytes > WHOLE:
            if n_bytes % 8 == 0 and bits.storage_offset() * bits.element_size() % 8 == 0:
                bits = bits.view(torch.int64)
            whole = bits.numel() - bits.numel() % RUN
            digest.update(bits[:whole].view(-1, RUN).sum(1, dtype=torch.int64).cpu().numpy().tobytes())
            bits = bits[whole:]
        digest.update(bits.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
