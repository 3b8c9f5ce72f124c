"""Harvest MLP outputs to disk: any set of layers in one pass, resumable, with the source of every token."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from ..core import ConceptLabError, atomic_path, cache_dir, require_space
from ..models import SITES, LanguageModel
from .harvest_files import HarvestJournal, data_path, disk_errors, missing, reserve, write_at
from .rows import TokenRows

# Residual streams grow beyond what float16 holds (65,504) in some models; what a module writes into them does not.
STORED_AS = {"resid_pre": "float32", "resid_post": "float32"}  # all other kinds: float16


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
    """Activations of a set of layers at the same token positions, on disk as float16 (residual streams: float32).

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
    dtype: str = "float16"
    key: str = ""  # of weights, rows, kind and dtype; empty where the files were made otherwise

    @property
    def n_tokens(self) -> int:
        return len(self.row)

    def fingerprint(self) -> str:
        """16 hexadecimal digits of what the activations depend on: weights, token rows, kind and dtype.

        What is trained on a harvest and goes on later compares this (with the layer), never a folder or a name. Where
        the files were made otherwise, they are read through.
        """
        if self.key:
            return self.key
        digest = hashlib.sha256(f"{self.rows.fingerprint()} {self.kind} {self.dtype} {self.d_model}\n".encode())
        for layer in self.layers:
            with open(data_path(self.folder, layer, self.dtype), "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]

    def memmap(self, layer: int) -> np.ndarray:
        """`[tokens, d_model]` in the harvest's dtype, read-only, not loaded."""
        if layer not in self.layers:
            raise ConceptLabError(f"Layer {layer} was not harvested; this harvest holds layers {list(self.layers)}.")
        path = data_path(self.folder, layer, self.dtype)
        size = self.n_tokens * self.d_model * np.dtype(self.dtype).itemsize
        if not path.is_file() or path.stat().st_size != size:
            raise ConceptLabError(f"{path} is missing or not of {size:,} bytes; call harvest again, it makes it anew.")
        return np.memmap(path, self.dtype, "r", shape=(self.n_tokens, self.d_model))

    def tensor(self, layer: int) -> Float[Tensor, "tokens d_model"]:
        """All activations of a layer in memory, float32."""
        return torch.from_numpy(np.array(self.memmap(layer), dtype=np.float32))

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

    Finished harvests are found again by a fingerprint of the weights as they are now (inside an edit: others), the rows
    and the kind; an interrupted one goes on where it stopped; one of more layers over the same rows serves as well.
    What lies on disk is verified by its checksums, and what fails is done again. `part = (i, n)`: do only the i-th of n
    equal shares of the rows, into the same files (several processes, one disk); the harvest is whole when every share
    has been done. Raises ConceptLabError, before work starts, for arguments that make no sense, a disk without room, or
    a model with functions on it; during the work for values that the files cannot hold and for a disk that fills up.
    """
    layers = _check(lm, rows, layers, kind, batch_size, part)
    keep = rows.docs >= 0
    keep[:, 0] = False
    row, pos = (x.numpy() for x in keep.nonzero(as_tuple=True))
    if not len(row):
        raise ConceptLabError("The rows hold no token that counts (only first positions and separators); give text.")
    if folder is None and lm.is_hooked:
        raise ConceptLabError(
            "Functions are on the model that the cache cannot know (intervene); harvest outside, or give a folder."
        )
    dtype = STORED_AS.get(kind, "float16")
    key = harvest_key(lm, rows, kind)
    folder = folder or _finished(key, layers, kind) or _folder(key, layers, kind)
    width = lm.d_mlp if kind == "neurons" else lm.d_model
    result = Harvest(folder, rows, layers, row, pos, width, kind, dtype, key)
    _check_owner(folder, key)
    journal, first_token = HarvestJournal(folder, key), np.searchsorted(row, np.arange(len(rows) + 1))
    done = journal.verified(layers, dtype, width, first_token)
    first, stop = (len(rows) * i // part[1] for i in (part[0], part[0] + 1))
    if todo := missing(done, first, stop):
        _prepare(result)
        for range_ in _write_rows(lm, result, keep, todo, batch_size, progress):
            with disk_errors(folder):
                journal.add(f"{part[0]}_of_{part[1]}", *range_)
            done.append(range_[:2])
    if not missing(done, 0, len(rows)):
        _write_state(folder / "state.json", len(rows), lm, result)
    return result


def harvest_key(lm: LanguageModel, rows: TokenRows, kind: str) -> str:
    """16 hexadecimal digits of all that a harvest's numbers depend on, but for the choice of layers."""
    parts = (lm.fingerprint(), rows.fingerprint(), kind, STORED_AS.get(kind, "float16"))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def _check(lm: LanguageModel, rows, layers, kind: str, batch_size: int, part) -> tuple[int, ...]:
    """The layers, ascending, each once. Raises ConceptLabError for arguments that make no sense."""
    if not isinstance(rows, TokenRows):
        raise ConceptLabError(f"harvest needs TokenRows, not a {type(rows).__name__}; make them with token_rows.")
    if not len(rows):
        raise ConceptLabError("There are no rows to harvest; give token_rows more text or a smaller n_ctx.")
    if kind not in SITES:
        raise ConceptLabError(f"Unknown site {kind!r}; the sites are {', '.join(SITES)}.")
    layers = [layers] if isinstance(layers, int) else list(layers)
    if wrong := [x for x in layers if isinstance(x, bool) or not isinstance(x, int | np.integer)]:
        raise ConceptLabError(f"Layer {wrong[0]!r} is not a whole number; layers are counted 0 to {lm.n_layers - 1}.")
    if not layers:
        raise ConceptLabError("No layer is given to harvest; name at least one.")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ConceptLabError(f"batch_size is {batch_size!r}; it is a number of rows, 1 or more.")
    if len(part) != 2 or not 0 <= part[0] < part[1]:
        raise ConceptLabError(f"part is {part}; give (i, n) with i from 0 to n - 1.")
    return tuple(sorted({lm.check_layer(int(layer)) for layer in layers}))


def _check_owner(folder: Path, key: str) -> None:
    """Raises for a folder that holds another harvest: it would be written over."""
    state = folder / "state.json"
    if state.exists() and _read_state(state).get("key", key) != key:
        raise ConceptLabError(f"{folder} holds the harvest of other weights, rows or kind; choose another folder.")


def _prepare(result: Harvest) -> None:
    """The folder, with files of the right size whose room on the disk is reserved."""
    size = result.n_tokens * result.d_model * np.dtype(result.dtype).itemsize
    paths = [data_path(result.folder, layer, result.dtype) for layer in result.layers]
    with disk_errors(result.folder):
        result.folder.mkdir(parents=True, exist_ok=True)
        (result.folder / "state.json").unlink(missing_ok=True)  # not whole until the last row is there
        absent = sum(max(0, size - (path.stat().st_size if path.exists() else 0)) for path in paths)
        require_space(result.folder, absent, f"Harvesting {result.n_tokens:,} tokens of {len(paths)} layers")
        for path in paths:
            reserve(path, size)


def _write_rows(
    lm: LanguageModel, result: Harvest, keep: Tensor, todo: list[tuple[int, int]], batch_size: int, progress: bool
) -> Iterator[tuple[int, int, dict[int, int]]]:
    """Run the rows of `todo`, write what is kept; first row, end and checksum per layer of each batch on disk."""
    n_ctx = result.rows.ids.shape[1]
    batches = [(i, min(i + batch_size, stop)) for start, stop in todo for i in range(start, stop, batch_size)]
    with tqdm(
        total=result.rows.n_tokens, initial=result.rows.n_tokens - n_ctx * sum(b - a for a, b in todo), unit="tok",
        disable=not progress, desc=f"harvest layers {list(result.layers)}",
    ) as bar:  # fmt: skip
        for i, end in batches:
            found = lm.capture(result.rows.ids[i:end], [(result.kind, layer) for layer in result.layers])
            start, sums = int(np.searchsorted(result.row, i)), {}
            for layer in result.layers:
                values = _stored(found[result.kind, layer].cpu()[keep[i:end]], result, layer)
                with disk_errors(result.folder):
                    sums[layer] = write_at(data_path(result.folder, layer, result.dtype), values, start)
            bar.update(n_ctx * (end - i))
            yield i, end, sums


def _stored(values: Tensor, result: Harvest, layer: int) -> np.ndarray:
    """The values in the dtype of the file. Raises for what is not finite there."""
    stored = values.to(getattr(torch, result.dtype))
    if not bool(torch.isfinite(stored).all()):
        size = float(values.float().abs().max())
        if bool(torch.isfinite(values).all()):
            why = f"reach {size:.3g}, more than {result.dtype} holds; harvest another site, or rescale the model"
        else:
            why = "are not finite; load the model in float32, or look at what was done to its weights"
        raise ConceptLabError(f"The activations {result.kind!r} of layer {layer} {why}.")
    return stored.numpy()


def _read_state(state: Path) -> dict:
    try:
        found = json.loads(state.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_state(state: Path, n_rows: int, lm: LanguageModel, result: Harvest) -> None:
    """What the folder holds, once it is whole. For readers: only the key is ever compared."""
    facts = {"rows": n_rows, "model": lm.name, "kind": result.kind, "dtype": result.dtype, "key": result.key}
    with atomic_path(state) as temporary:
        temporary.write_text(json.dumps(facts), encoding="utf-8")


def _folder(key: str, layers: tuple[int, ...], kind: str) -> Path:
    return cache_dir() / "activations" / f"{kind}-{'_'.join(map(str, layers))}-{key}"


def _finished(key: str, layers: tuple[int, ...], kind: str) -> Path | None:
    """The folder of a finished harvest of the same key that holds all of `layers`, the smallest if several do."""
    found = []
    for path in (cache_dir() / "activations").glob(f"{kind}-*-{key}"):
        held = {int(x) for x in path.name[len(kind) + 1 : -len(key) - 1].split("_") if x.isdecimal()}
        if held.issuperset(layers) and _read_state(path / "state.json").get("key") == key:
            found.append((len(held), path))
    return min(found)[1] if found else None
