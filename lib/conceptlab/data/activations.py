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

from ..core import ConceptLabError, atomic_path, cache_dir, require_space
from ..models import LanguageModel
from .rows import TokenRows


def shuffled_batches(n: int, size: int, seed: int = 0, steps: int | None = None) -> Iterator[Int[np.ndarray, " size"]]:
    """`steps` batches of ascending indices below `n`, a new order each time all are used up; the rest is left out."""
    generator, done = np.random.default_rng(seed), 0
    size = min(size, n)
    while steps is None or done < steps:
        order = generator.permutation(n)
        for i in range(0, n - size + 1, size):
            if steps is not None and done >= steps:
                return
            done += 1
            yield np.sort(order[i : i + size])


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
        data = self.memmap(layer)
        for picks in shuffled_batches(self.n_tokens, size, seed, steps):
            yield torch.from_numpy(data[picks].astype(np.float32))

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
    part: tuple[int, int] = (0, 1),
) -> Harvest:
    """Run `rows` through the model up to the deepest of `layers` and keep the activations at site `kind`.

    Finished harvests are found again by a hash of model, rows, layers and kind; an interrupted one goes on where it
    stopped; one of more layers over the same rows serves as well. Refuses to start when the disk has no room for it.
    `part = (i, n)`: do only the i-th of n equal shares of the rows, into the same files (several processes, one disk);
    the harvest is whole when every share has been done.
    """
    layers = tuple(sorted({lm.check_layer(layer) for layer in layers}))
    keep = rows.docs >= 0
    keep[:, 0] = False
    row, pos = (x.numpy() for x in keep.nonzero(as_tuple=True))
    width = lm.d_mlp if kind == "neurons" else lm.d_model
    folder = folder or _finished(lm, rows, layers, kind) or _folder(lm, rows, layers, kind)
    result = Harvest(folder, rows, layers, row, pos, width, kind)
    first, stop = (len(rows) * i // part[1] for i in (part[0], part[0] + 1))
    if _rows_done(result.folder / "state.json") >= len(rows):
        return result
    state = result.folder / ("state.json" if part[1] == 1 else f"state_{part[0]}_of_{part[1]}.json")
    done = max(first, _rows_done(state))
    result.folder.mkdir(parents=True, exist_ok=True)
    missing = sum(2 * width * len(row) for x in layers if not (result.folder / f"layer_{x:02d}.f16").exists())
    require_space(result.folder, missing, f"Harvesting {len(row):,} tokens of {len(layers)} layers")
    bar = tqdm(
        total=(stop - first) * rows.ids.shape[1], initial=(done - first) * rows.ids.shape[1], unit="tok",
        disable=not progress, desc=f"harvest layers {list(layers)}",
    )  # fmt: skip
    for n_done in _write_rows(lm, result, keep, range(done, stop, batch_size), stop):
        bar.update((n_done - done) * rows.ids.shape[1])
        done = n_done
        _write_state(state, done, lm, kind)
    bar.close()
    shares = [result.folder / f"state_{i}_of_{part[1]}.json" for i in range(part[1])]
    if part[1] > 1 and all(_rows_done(x) >= len(rows) * (i + 1) // part[1] for i, x in enumerate(shares)):
        _write_state(result.folder / "state.json", len(rows), lm, kind)
    return result


def _write_rows(lm: LanguageModel, result: Harvest, keep: Tensor, starts: range, stop: int) -> Iterator[int]:
    """Run the batches of rows that begin at `starts`, write what is kept, and say up to which row it is on disk."""
    files = [_open(result.folder / f"layer_{x:02d}.f16", (result.n_tokens, result.d_model)) for x in result.layers]
    for i in starts:
        end = min(i + starts.step, stop)
        found = lm.capture(result.rows.ids[i:end], [(result.kind, layer) for layer in result.layers])
        start = int(np.searchsorted(result.row, i))
        for layer, file in zip(result.layers, files, strict=True):
            part = found[result.kind, layer].cpu()[keep[i:end]].to(torch.float16).numpy()
            file[start : start + len(part)] = part
            file.flush()
        yield end


def _open(path: Path, shape: tuple[int, int]) -> np.memmap:
    with open(path, "ab") as file:  # several processes may come here at once: nobody shortens what another has written
        file.truncate(2 * shape[0] * shape[1])
    return np.memmap(path, np.float16, "r+", shape=shape)


def _rows_done(state: Path) -> int:
    return json.loads(state.read_text())["rows"] if state.exists() else 0


def _write_state(state: Path, done: int, lm: LanguageModel, kind: str) -> None:
    with atomic_path(state) as temporary:
        temporary.write_text(json.dumps({"rows": done, "model": lm.name, "kind": kind}))


def _folder(lm: LanguageModel, rows: TokenRows, layers: tuple[int, ...], kind: str) -> Path:
    return cache_dir() / "activations" / _key(lm, rows, layers, kind)


def _finished(lm: LanguageModel, rows: TokenRows, layers: tuple[int, ...], kind: str) -> Path | None:
    """The folder of a finished harvest of the same rows that holds all of `layers`, the smallest if several do."""
    own = _folder(lm, rows, layers, kind)
    named = "_".join(map(str, layers))
    before, after = own.name.rsplit(f"-{named}-", 1)
    found = []
    for path in own.parent.glob(f"{before}-*-{after}"):
        held = {int(x) for x in path.name[len(before) + 1 : -len(after) - 1].split("_") if x.isdecimal()}
        if held.issuperset(layers) and _rows_done(path / "state.json") >= len(rows):
            found.append((len(held), path))
    return min(found)[1] if found else None


def _key(lm: LanguageModel, rows: TokenRows, layers: tuple[int, ...], kind: str) -> str:
    digest = hashlib.sha256(rows.ids.numpy().tobytes())
    return f"{lm.name.replace('/', '_')}-{kind}-{'_'.join(map(str, layers))}-{digest.hexdigest()[:12]}"


def delete_harvest(found: Harvest) -> None:
    """Remove a harvest from the disk."""
    shutil.rmtree(found.folder, ignore_errors=True)
