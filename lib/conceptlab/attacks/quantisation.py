"""Quantisation: store the edited weights in few bits and see whether what was removed comes back.

An edit that is smaller than half a quantisation step is rounded away (arXiv 2410.16454). Every matrix of every block is
rounded; embeddings and norms are left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError
from ..edits import Intervention, applied
from ..models import Change, LanguageModel
from .base import AttackResult, Cost

# GGUF type of each matrix in the file a packaged model came from: the first name it ends with decides. In the Gemma
# file every second down_proj is Q6_K and every second v_proj Q8_0; here they take the coarser type of their kind.
GGUF_TYPES = {
    "smollm2-135m": {"": "Q4_1"},
    "gemma3-270m": {"o_proj.weight": "Q4_K", "down_proj.weight": "Q4_K", "": "Q5_0"},
}


# The gguf package reads Q4_K and cannot write it. Q4_1 is the nearest it can: 4 bits, scale and minimum per 32 numbers
# (Q4_K also quantises the scales and minima, to 6 bits per 256 numbers).
NEAREST = {"Q4_K": "Q4_1"}


def round_to_nearest(weight: Float[Tensor, "out in"], bits: int, group: int | None = None) -> Float[Tensor, "out in"]:
    """The nearest of `2^bits - 1` evenly spaced levels, symmetric about 0, the largest number a level (absmax).

    One scale per output row, or per `group` neighbouring inputs of a row. Raises for bits outside 2 to 16 and for a
    group that does not divide the number of inputs.
    """
    if not 2 <= bits <= 16 or bits != int(bits):
        raise ConceptLabError(f"Rounding needs 2 to 16 bits, a whole number; got {bits}.")
    if group is not None and (group < 1 or weight.shape[1] % group):
        raise ConceptLabError(f"Groups of {group} do not divide {weight.shape[1]} inputs; choose a divisor.")
    rows = weight if group is None else weight.reshape(-1, group)
    top = 2 ** (bits - 1) - 1
    scale = rows.abs().amax(1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny) / top
    return ((rows / scale).round() * scale).view(weight.shape)


def round_to_gguf(weight: Float[Tensor, "out in"], kind: str) -> Float[Tensor, "out in"]:
    """`weight` written as a GGUF type (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0; Q4_K by its `NEAREST`) and read again."""
    from gguf import GGMLQuantizationType, quants

    kind = NEAREST.get(kind, kind)
    if kind not in GGMLQuantizationType.__members__:
        raise ConceptLabError(f"Unknown GGUF type {kind!r}; choose one of Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0.")
    code = GGMLQuantizationType[kind]
    try:
        packed = quants.quantize(weight.detach().float().cpu().numpy(), code)
    except NotImplementedError:
        raise ConceptLabError(f"The gguf package cannot write {kind}; choose Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0.") from None
    except quants.QuantError:
        raise ConceptLabError(f"{kind} needs rows of a multiple of 32 numbers; got {weight.shape[1]}.") from None
    return torch.from_numpy(quants.dequantize(packed, code)).to(weight)


@dataclass(frozen=True)
class Quantised:
    """An intervention, or the unchanged model (None), with every matrix of every block rounded."""

    inner: Intervention | None
    bits: int = 4
    group: int | None = None  # inputs that share a scale; None: all of an output row
    gguf: bool = False  # True: to the type of the file the model came from instead; bits and group do not count

    @contextmanager
    def applied(self, lm: LanguageModel) -> Iterator[LanguageModel]:
        """Rounded inside the block, bit-identical to before outside. Embeddings and norms are left alone."""
        with applied(self.inner, lm):  # which may have untied the two embeddings
            keep = {lm.embedding().data_ptr(), lm.unembedding_rows().data_ptr()}
            matrices = [(n, p) for n, p in lm.parameters().items() if p.ndim == 2 and p.data_ptr() not in keep]

            @torch.no_grad()
            def begin(change: Change) -> None:
                for name, p in matrices:
                    change.keep(p)
                    p.copy_(self._round(lm, name, p))

            with Change(lm, "rounding", begin):
                yield lm

    def _round(self, lm: LanguageModel, name: str, weight: Tensor) -> Tensor:
        if not self.gguf:
            return round_to_nearest(weight.detach(), self.bits, self.group)
        if lm.name not in GGUF_TYPES:
            raise ConceptLabError(
                f"{lm.name} did not come from a GGUF file that is known here ({', '.join(GGUF_TYPES)} did); give bits."
            )
        kind = next(k for ending, k in GGUF_TYPES[lm.name].items() if name.endswith(ending))
        return round_to_gguf(weight, kind)


@dataclass(frozen=True)
class QuantiseConfig:
    """How coarsely the attacker stores the model."""

    bits: tuple[int, ...] = (8, 4, 3)  # 8 is the control that should change little
    group: int | None = None  # inputs that share a scale; None: one scale per output row
    gguf: bool = False  # one more strength at the end: the type of the file the model came from


def quantise(
    lm: LanguageModel,
    intervention: Intervention | None,
    evaluate: Callable[[LanguageModel], object],
    cfg: QuantiseConfig = QuantiseConfig(),
) -> AttackResult:
    """`evaluate(lm)` after rounding the changed model, once per number of bits (labels `8-bit`, ..., `gguf`).

    The attacker sees neither questions nor texts. Rounding damages any model, so compare with the rounded original.
    """
    kinds = [Quantised(intervention, bits, cfg.group) for bits in cfg.bits]
    kinds += [Quantised(intervention, gguf=True)] if cfg.gguf else []
    if not kinds:
        raise ConceptLabError("Quantisation needs at least one number of bits, or gguf=True.")
    values, start = [], time.perf_counter()
    with torch.no_grad():
        for kind in kinds:
            with kind.applied(lm):
                values.append(evaluate(lm))
    cost = Cost(0, 0, time.perf_counter() - start)
    labels = tuple("gguf" if k.gguf else f"{k.bits}-bit" for k in kinds)
    return AttackResult(tuple(k.bits for k in kinds), tuple(values), (), cost, labels=labels)
