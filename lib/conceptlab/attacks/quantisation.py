"""Quantisation: store the edited weights in few bits and see whether what was removed comes back.

An edit that is smaller than half a quantisation step is rounded away (arXiv 2410.16454).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..cache import ConceptLabError
from ..models import LanguageModel
from .base import Intervention, applied


def round_to_nearest(weight: Float[Tensor, "out in"], bits: int) -> Float[Tensor, "out in"]:
    """The nearest of `2^bits - 1` evenly spaced levels, symmetric about 0, one scale per output row (absmax)."""
    if not 2 <= bits <= 16:
        raise ConceptLabError(f"Rounding needs 2 to 16 bits; got {bits}.")
    top = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny) / top
    return (weight / scale).round() * scale


@dataclass(frozen=True)
class Quantised:
    """An intervention, or the unchanged model (None), with every matrix of every block rounded to `bits`."""

    inner: Intervention | None
    bits: int = 4

    @contextmanager
    def applied(self, lm: LanguageModel) -> Iterator[LanguageModel]:
        """Rounded inside the block, bit-identical to before outside. Embeddings and norms are left alone."""
        keep = {id(lm.hf.get_input_embeddings().weight), id(lm.hf.get_output_embeddings().weight)}
        with applied(self.inner, lm):
            matrices = [p for p in lm.hf.parameters() if p.ndim == 2 and id(p) not in keep]
            before = [p.detach().clone() for p in matrices]
            try:
                with torch.no_grad():
                    for p in matrices:
                        p.copy_(round_to_nearest(p, self.bits))
                yield lm
            finally:
                with torch.no_grad():
                    for p, old in zip(matrices, before, strict=True):
                        p.copy_(old)
