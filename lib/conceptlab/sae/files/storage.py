"""Small storage: matrices as packed integers of a few bits, with a float16 scale for each group of columns.

A group of numbers `w` is stored as integers `q` of `b` bits and one scale `s`, and read as `s * q`. The scale is not
`max |w| / (2^(b-1) - 1)` but the share of it that leaves the least squared error: with few bits it pays to clip the
largest number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ...core import ConceptLabError


@dataclass(frozen=True)
class Storage:
    """How the two matrices of a dictionary are written."""

    enc_bits: int  # bits per number of W_enc, 2 to 8
    dec_bits: int  # bits per number of W_dec, 2 to 8
    group: int = 0  # numbers that share a scale; 0: a whole row (one feature)


STORAGES = {
    "float32": None,  # SAELens' own layout, which sae-lens reads
    "int8": Storage(8, 8),
    "int5": Storage(5, 5, 64),  # what the shipped dictionaries use
}


def find_storage(name: str | Storage | None) -> Storage | None:
    """A named storage, or the one given. Raises ConceptLabError for an unknown name."""
    if not isinstance(name, str):
        return name
    if name not in STORAGES:
        raise ConceptLabError(f"Unknown storage {name!r}; known are {', '.join(STORAGES)}.")
    return STORAGES[name]


def to_integers(
    rows: Float[Tensor, "n d"], bits: int, group: int = 0
) -> tuple[UInt8[Tensor, "n packed"], Float[Tensor, "n groups"]]:
    """Codes, packed so that a row takes `ceil(d * bits / 8)` bytes, and float16 scales. A group must divide `d`."""
    n, d = rows.shape
    group = group or d
    if not 2 <= bits <= 8 or d % group:
        raise ConceptLabError(f"Storage with {bits} bits and groups of {group} does not suit rows of {d}; see Storage.")
    top = 2 ** (bits - 1) - 1
    parts = rows.detach().float().cpu().reshape(n, d // group, group)
    largest = parts.abs().amax(-1, keepdim=True)
    codes, scales, least = torch.zeros_like(parts), torch.zeros_like(largest), torch.full_like(largest, torch.inf)
    for share in torch.linspace(1.0, 0.5, 11).tolist():
        scale = (largest * share / top).half().float()
        # a scale that float16 rounds to 0 belongs to numbers that are 0 for every purpose
        q = (parts / scale.clamp_min(1e-12)).round().clamp(-top - 1, top)
        error = (q * scale - parts).square().sum(-1, keepdim=True)
        better = error < least
        codes, scales, least = torch.where(better, q, codes), torch.where(better, scale, scales), error.minimum(least)
    return _pack((codes + top + 1).to(torch.uint8).view(n, d), bits), scales.squeeze(-1).half()


def from_integers(
    packed: UInt8[Tensor, "n packed"], scales: Float[Tensor, "n groups"], bits: int, d: int
) -> Float[Tensor, "n d"]:
    """The rows that `to_integers` stored, float32. Raises ConceptLabError when the sizes do not belong together."""
    n, groups = scales.shape
    if packed.shape != (n, (d * bits + 7) // 8) or not groups or d % groups:
        raise ConceptLabError(f"Packed rows of shape {tuple(packed.shape)} are not {d} numbers of {bits} bits each.")
    codes = _unpack(packed, bits, d).float() - 2 ** (bits - 1)
    return (codes.view(n, groups, d // groups) * scales.float()[..., None]).view(n, d)


def _pack(codes: Tensor, bits: int) -> Tensor:
    """Numbers below `2^bits` [n, d] as a stream of bits, most significant first, each row padded to whole bytes."""
    stream = np.unpackbits(codes.numpy()[..., None], axis=-1)[..., 8 - bits :]
    return torch.from_numpy(np.packbits(stream.reshape(len(codes), -1), axis=-1))


def _unpack(packed: Tensor, bits: int, d: int) -> Tensor:
    stream = np.unpackbits(packed.numpy(), axis=-1)[:, : d * bits].reshape(len(packed), d, bits)
    return torch.from_numpy(np.packbits(stream, axis=-1)[..., 0] >> (8 - bits))


def pack_matrices(tensors: dict[str, Tensor], storage: Storage) -> dict[str, Tensor]:
    """Replace `W_enc` and `W_dec` by `<name>.codes` and `<name>.scales`; one row per feature in both."""
    out = {name: tensor for name, tensor in tensors.items() if name not in ("W_enc", "W_dec")}
    for name, rows, bits in (
        ("W_enc", tensors["W_enc"].T, storage.enc_bits),
        ("W_dec", tensors["W_dec"], storage.dec_bits),
    ):
        out[f"{name}.codes"], out[f"{name}.scales"] = to_integers(rows, bits, storage.group)
    return out


def unpack_matrices(tensors: dict[str, Tensor], storage: Storage, d_in: int) -> dict[str, Tensor]:
    """The inverse of `pack_matrices`. Raises ConceptLabError when a part is missing or of the wrong size."""
    out = {name: tensor for name, tensor in tensors.items() if not name.endswith((".codes", ".scales"))}
    for name, bits in (("W_enc", storage.enc_bits), ("W_dec", storage.dec_bits)):
        try:
            codes, scales = tensors[f"{name}.codes"], tensors[f"{name}.scales"]
        except KeyError as error:
            raise ConceptLabError(f"The dictionary's file lacks {error.args[0]}; fetch or write it again.") from None
        rows = from_integers(codes, scales, bits, d_in)
        out[name] = rows.T.contiguous() if name == "W_enc" else rows
    return out
