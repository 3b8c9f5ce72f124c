"""Vocabulary projection: which tokens does a direction of the residual stream promote, and which does it suppress?

A direction `v` adds `v @ (gain * W_U).T` to the logits, up to the positive scale of the final norm (the logit lens;
Geva et al. 2022 for value vectors). Both ends are kept: a gated neuron may be negative, and then writes `-v`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..core import ConceptLabError, atomic_path, cache_dir, largest
from .language_model import LanguageModel
from .tokens import whole_number

_CHUNK = 256  # vectors per matrix product: 50 MB of logits for SmolLM2, 270 MB for Gemma


@dataclass(frozen=True)
class TopTokens:
    """The `k` most promoted and most suppressed tokens of each vector, strongest first."""

    top_ids: Int[Tensor, "n k"]
    top_values: Float[Tensor, "n k"]  # logit contributions per unit of the vector
    bottom_ids: Int[Tensor, "n k"]
    bottom_values: Float[Tensor, "n k"]

    def __getitem__(self, index) -> TopTokens:
        return TopTokens(*(getattr(self, f)[index] for f in self.__dataclass_fields__))

    def signed_ids(self) -> Int[Tensor, "n 2 k"]:
        """Ids of both ends: index 0 what `+v` promotes, index 1 what `-v` promotes."""
        return torch.stack([self.top_ids, self.bottom_ids], dim=1)


@torch.no_grad()
def project(
    lm: LanguageModel,
    vectors: Float[Tensor, "n d_model"],
    k: int = 50,
    vocab_ids: Int[Tensor, " m"] | None = None,
    cache: bool = True,
) -> TopTokens:
    """Top and bottom `k` tokens of every vector.

    `vocab_ids` restricts the projection to some tokens (say so where you show it). Results of more than 1,000
    vectors are kept on disk under the fingerprint of the weights and a hash of vectors, subset and k; a damaged file
    is computed anew. Extra memory: one chunk of logits. Raises ConceptLabError when k exceeds the vocabulary, a token
    id is out of range or a vector is not finite.
    """
    if vectors.dim() != 2 or vectors.shape[1] != lm.d_model or not vectors.is_floating_point():
        raise ConceptLabError(
            f"Vectors are projected as rows [n, {lm.d_model}] of floating-point numbers; got {list(vectors.shape)} of "
            f"{str(vectors.dtype).removeprefix('torch.')}."
        )
    rows, folded = lm.unembedding_rows(), lm.folded(vectors)
    if vocab_ids is not None:
        if not len(vocab_ids):
            raise ConceptLabError("vocab_ids is empty; give at least one token to project on.")
        if int(vocab_ids.min()) < 0 or int(vocab_ids.max()) >= lm.d_vocab:
            raise ConceptLabError(f"vocab_ids must lie in 0 to {lm.d_vocab - 1} for {lm.name}.")
        rows = rows[vocab_ids.to(rows.device)]
    if not 1 <= whole_number(k, "k") <= len(rows):
        raise ConceptLabError(f"k must lie in 1 to {len(rows)}, the number of tokens that are projected on; got {k}.")
    if not bool(torch.isfinite(folded).all()):
        raise ConceptLabError("A vector that is projected holds values that are not finite; it has no top tokens.")
    path = _cache_path(lm, folded, vocab_ids, k) if cache and len(vectors) > 1000 else None
    found = _cached(path, len(vectors), k, len(rows)) if path is not None else None
    if found is None:
        found = _project(folded, rows, k)
        if path is not None:
            with atomic_path(path) as temporary:
                save_file(found, temporary)
    result = TopTokens(**{name: found[name] for name in TopTokens.__dataclass_fields__})
    if vocab_ids is None:
        return result
    names = vocab_ids.cpu()
    return TopTokens(names[result.top_ids], result.top_values, names[result.bottom_ids], result.bottom_values)


def _project(folded: Tensor, rows: Tensor, k: int) -> dict[str, Tensor]:
    n = len(folded)
    parts: dict[str, list[Tensor]] = {name: [] for name in TopTokens.__dataclass_fields__}
    buffer = torch.empty(min(n, _CHUNK), len(rows), device=rows.device, dtype=rows.dtype)  # reused: no page faults
    for i in range(0, n, _CHUNK):
        chunk = folded[i : i + _CHUNK].to(rows.dtype)
        logits = torch.mm(chunk, rows.T, out=buffer[: len(chunk)])
        for end in ("top", "bottom"):
            values, ids = largest(logits, k, smallest=end == "bottom")
            order = values.argsort(dim=1, descending=end == "top")
            parts[f"{end}_ids"].append(ids.gather(1, order).cpu())
            parts[f"{end}_values"].append(values.gather(1, order).cpu())
    return {name: torch.cat(found).contiguous() for name, found in parts.items()}


def _cache_path(lm: LanguageModel, folded: Tensor, vocab_ids: Tensor | None, k: int) -> Path:
    subset = torch.empty(0, dtype=torch.long) if vocab_ids is None else vocab_ids
    key = f"projection 2 {lm.fingerprint()} {k} {folded.dtype} {tuple(folded.shape)} {vocab_ids is None}"
    digest = hashlib.sha256(key.encode())
    for tensor in (folded, subset):
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return cache_dir() / "projection" / f"{digest.hexdigest()[:32]}.safetensors"


def _cached(path: Path, n: int, k: int, n_tokens: int) -> dict[str, Tensor] | None:
    """What an earlier call kept; None where there is nothing, or nothing that can be used."""
    try:
        found = load_file(path)
    except (OSError, SafetensorError):
        return None
    whole = found.keys() == TopTokens.__dataclass_fields__.keys() and all(x.shape == (n, k) for x in found.values())
    if not whole or not all(bool(torch.isfinite(found[f"{end}_values"]).all()) for end in ("top", "bottom")):
        return None
    ids = torch.stack([found["top_ids"], found["bottom_ids"]])
    return found if 0 <= int(ids.min()) and int(ids.max()) < n_tokens else None


def logit_effect(
    lm: LanguageModel, vectors: Float[Tensor, "n d_model"], token_ids: Int[Tensor, " m"]
) -> Float[Tensor, "n m"]:
    """Logit contribution of each vector to each of a few tokens, without touching the rest of the vocabulary."""
    return lm.folded(vectors) @ lm.unembedding_rows()[token_ids.to(lm.device)].T
