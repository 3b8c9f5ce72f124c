"""Harvest MLP outputs to disk: any set of layers in one pass, resumable, with the source of every token."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from .cache import ConceptLabError, atomic_path, cache_dir, require_space
from .models import LanguageModel
from .text import TokenRows


@dataclass(frozen=True)
class Harvest:
    """Activations of a set of layers at the same token positions, float16 on disk.

    Position 0 of every row is left out: as the attention sink it carries, in some layers, activations a hundred times
    the usual size. So are separators and start tokens. `row` and `pos` say where each kept token stands in `rows`.
    """

    folder: Path
    rows: TokenRows
    layers: tuple[int, ...]
    row: Int[np.ndarray, " tokens"]
    pos: Int[np.ndarray, " tokens"]
    d_model: int
    kind: str

    @property
    def n_tokens(self) -> int:
        return len(self.row)

    def memmap(self, layer: int) -> np.ndarray:
        """`[tokens, d_model]` float16, read-only, not loaded."""
        if layer not in self.layers:
            raise ConceptLabError(f"Layer {layer} was not harvested; this harvest holds layers {list(self.layers)}.")
        return np.memmap(self.folder / f"layer_{layer:02d}.f16", np.float16, "r", shape=(self.n_tokens, self.d_model))

    def tensor(self, layer: int) -> Float[Tensor, "tokens d_model"]:
        """All activations of a layer in memory, float32."""
        return torch.from_numpy(np.asarray(self.memmap(layer), dtype=np.float32))

    def batches(self, layer: int, size: int, seed: int = 0, steps: int | None = None) -> Iterator[Tensor]:
        """`steps` shuffled batches `[size, d_model]` (float32); a new order each time the data is used up."""
        data, generator, done = self.memmap(layer), np.random.default_rng(seed), 0
        size = min(size, self.n_tokens)
        while steps is None or done < steps:
            order = generator.permutation(self.n_tokens)
            for i in range(0, self.n_tokens - size + 1, size):
                if steps is not None and done >= steps:
                    return
                done += 1
                yield torch.from_numpy(data[np.sort(order[i : i + size])].astype(np.float32))

    def token_ids(self) -> Int[Tensor, " tokens"]:
        """The token at each kept position."""
        return self.rows.ids[torch.from_numpy(self.row), torch.from_numpy(self.pos)]

    def docs(self) -> Int[Tensor, " tokens"]:
        """Index of the text each kept token came from."""
        return self.rows.docs[torch.from_numpy(self.row), torch.from_numpy(self.pos)]

    def context(self, index: int, width: int = 12) -> tuple[Int[Tensor, " window"], int]:
        """Token ids around kept token `index`, and the token's place in that window."""
        row, pos = int(self.row[index]), int(self.pos[index])
        start = max(0, pos - width)
        return self.rows.ids[row, start : pos + width // 2 + 1], pos - start


def harvest(
    lm: LanguageModel,
    rows: TokenRows,
    layers: Sequence[int],
    kind: str = "mlp_output",
    batch_size: int = 16,
    folder: Path | None = None,
    progress: bool = True,
) -> Harvest:
    """Run `rows` through the model up to the deepest of `layers` and keep the activations at site `kind`.

    Finished harvests are found again by a hash of model, rows, layers and kind; an interrupted one goes on where it
    stopped. Refuses to start when the disk has no room for it.
    """
    layers = tuple(sorted({lm.check_layer(layer) for layer in layers}))
    keep = rows.docs >= 0
    keep[:, 0] = False
    row, pos = (x.numpy() for x in keep.nonzero(as_tuple=True))
    width = lm.d_mlp if kind == "neurons" else lm.d_model
    folder = folder or cache_dir() / "activations" / _key(lm, rows, layers, kind)
    state = folder / "state.json"
    done = json.loads(state.read_text())["rows"] if state.exists() else 0
    result = Harvest(folder, rows, layers, row, pos, width, kind)
    if done >= len(rows):
        return result
    folder.mkdir(parents=True, exist_ok=True)
    require_space(folder, 2 * width * len(row) * len(layers), f"Harvesting {len(row):,} tokens of {len(layers)} layers")
    files = [_open(folder / f"layer_{layer:02d}.f16", (len(row), width)) for layer in layers]
    bar = tqdm(total=len(rows) * rows.ids.shape[1], initial=done * rows.ids.shape[1], unit="tok", disable=not progress)
    bar.set_description(f"harvest layers {list(layers)}")
    for i, ids in rows.batches(batch_size, start=done):
        found = lm.capture(ids, [(kind, layer) for layer in layers])
        chosen = keep[i : i + len(ids)]
        start = int(np.searchsorted(row, i))
        for layer, file in zip(layers, files, strict=True):
            part = found[kind, layer].cpu()[chosen].to(torch.float16).numpy()
            file[start : start + len(part)] = part
        bar.update(ids.numel())
        for file in files:
            file.flush()
        with atomic_path(state) as temporary:
            temporary.write_text(json.dumps({"rows": i + len(ids), "model": lm.name, "kind": kind}))
    bar.close()
    return result


def _open(path: Path, shape: tuple[int, int]) -> np.memmap:
    size = 2 * shape[0] * shape[1]
    mode = "r+" if path.exists() and path.stat().st_size == size else "w+"
    return np.memmap(path, np.float16, mode, shape=shape)


def _key(lm: LanguageModel, rows: TokenRows, layers: tuple[int, ...], kind: str) -> str:
    digest = hashlib.sha256(rows.ids.numpy().tobytes())
    return f"{lm.name.replace('/', '_')}-{kind}-{'_'.join(map(str, layers))}-{digest.hexdigest()[:12]}"


def delete_harvest(found: Harvest) -> None:
    """Remove a harvest from the disk."""
    shutil.rmtree(found.folder, ignore_errors=True)
