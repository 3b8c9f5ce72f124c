"""The files of a harvest: activations per layer, on a disk that may fill up, and a journal of checksums."""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..core import ConceptLabError

SUFFIX = {"float16": "f16", "float32": "f32"}
Ranges = list[tuple[int, int]]  # of rows, half open, ascending, without overlap


def data_path(folder: Path, layer: int, dtype: str) -> Path:
    """Where the activations of a layer lie: `[tokens, d]`, numbers alone."""
    return folder / f"layer_{layer:02d}.{SUFFIX[dtype]}"


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turns what a full, read-only or broken disk raises into one sentence."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        why = "the disk is full" if full else f"{error.strerror}"
        raise ConceptLabError(
            f"The harvest in {folder} stopped: {why}; make room or set CONCEPTLAB_CACHE to another disk, then call it "
            "again: it goes on with what is there."
        ) from None


def reserve(path: Path, n_bytes: int) -> None:
    """Make `path` a file of exactly `n_bytes` whose blocks are reserved, what it holds left as it is.

    Several processes may come here at once; all ask for the same size.
    """
    with open(path, "ab") as file:
        file.truncate(n_bytes)
        if n_bytes and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # a disk that cannot reserve
                    raise


def write_at(path: Path, values: np.ndarray, row: int) -> int:
    """Write `values` `[n, d]` from row `row` of the file on; their checksum. A full disk raises OSError here.

    Written with a file and not through a memory map, where a full disk ends the process by a signal.
    """
    raw = np.ascontiguousarray(values).tobytes()
    with open(path, "r+b", buffering=0) as file:
        file.seek(row * values.shape[1] * values.itemsize)
        view = memoryview(raw)
        while view:
            view = view[file.write(view) :]
    return zlib.crc32(raw)


# ---- what has been done ------------------------------------------------------------------------------------
class HarvestJournal:
    """Which rows of which layers are on disk, with their checksums: one line of JSON per batch, one file per share."""

    def __init__(self, folder: Path, key: str):
        self.folder, self.key = folder, key

    def add(self, share: str, start: int, stop: int, sums: dict[int, int]) -> None:
        """Note that rows `start` to `stop` of some layers have been written (layer -> checksum)."""
        path = self.folder / f"rows_{share}.jsonl"
        line = json.dumps({"key": self.key, "rows": [start, stop], "sums": {str(k): v for k, v in sums.items()}})
        torn = path.exists() and path.stat().st_size and not _ends_line(path)
        with open(path, "a", encoding="utf-8") as file:
            file.write(("\n" if torn else "") + line + "\n")

    def entries(self) -> Iterator[tuple[int, int, dict[int, int]]]:
        """Every line that is whole and of this harvest; a torn or foreign one counts as not done."""
        for path in sorted(self.folder.glob("rows_*.jsonl")):
            for line in path.read_bytes().splitlines():
                try:
                    entry = json.loads(line)
                    (start, stop), sums = map(int, entry["rows"]), {int(k): int(v) for k, v in entry["sums"].items()}
                except (ValueError, TypeError, KeyError, AttributeError):
                    continue
                if entry["key"] == self.key and 0 <= start < stop:
                    yield start, stop, sums

    def verified(self, layers: tuple[int, ...], dtype: str, width: int, first_token: np.ndarray) -> Ranges:
        """The rows that are on disk with the checksum they were written with, in every one of `layers`.

        `first_token[i]`: the number of kept tokens before row `i` (length: rows + 1). Reads the files once (1 GB/s).
        """
        size = int(first_token[-1]) * width * np.dtype(dtype).itemsize
        found: dict[int, Ranges] = {}
        for layer in layers:
            path = data_path(self.folder, layer, dtype)
            found[layer] = []
            if not path.is_file() or path.stat().st_size != size:
                continue
            with open(path, "rb") as file:
                for start, stop, sums in self.entries():
                    known = layer in sums and stop < len(first_token)
                    if known and sums[layer] == _sum(file, start, stop, first_token, size):
                        found[layer].append((start, stop))
        n_rows = len(first_token) - 1
        done = np.all([_mask(ranges, n_rows) for ranges in found.values()], axis=0)
        return _ranges(done)


def missing(done: Ranges, first: int, stop: int) -> Ranges:
    """The parts of rows `first` to `stop` that are not in `done`."""
    mask = np.zeros(stop, bool)
    for a, b in done:
        mask[a:b] = True
    mask[:first] = True
    return _ranges(~mask)


def _sum(file, start: int, stop: int, first_token: np.ndarray, size: int) -> int:
    per_token = size // int(first_token[-1])
    file.seek(int(first_token[start]) * per_token)
    return zlib.crc32(file.read(int(first_token[stop] - first_token[start]) * per_token))


def _ends_line(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _mask(ranges: Ranges, n: int) -> np.ndarray:
    mask = np.zeros(n, bool)
    for a, b in ranges:
        mask[a:b] = True
    return mask


def _ranges(mask: np.ndarray) -> Ranges:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
