"""Files: the cache folder, the data folder, room on the disk, atomic writes, checksums."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ConceptLabError


def cache_dir() -> Path:
    """The cache folder: `CONCEPTLAB_CACHE`, else `conceptlab` in the user's cache folder. Made if absent."""
    path = os.environ.get("CONCEPTLAB_CACHE")
    if path is None:
        path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "conceptlab"
    path = Path(path).expanduser().resolve()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConceptLabError(
            f"The cache folder {path} cannot be made ({error.strerror}); "
            "set CONCEPTLAB_CACHE to a folder you can write to."
        ) from None
    return path


def data_dir() -> Path:
    """The repository's `data/` folder (the package is installed from a clone with `pip install -e .`)."""
    path = Path(__file__).resolve().parents[3] / "data"
    if not path.is_dir():
        raise ConceptLabError(
            "The folder data/ was not found beside lib/; clone the repository and install it with "
            "`pip install -e .` so that the course data is there."
        )
    return path


def require_space(folder: Path, n_bytes: int, what: str) -> None:
    """Raise unless `folder`'s disk has room for `n_bytes` and a margin of 5 %."""
    free = shutil.disk_usage(folder).free
    if free < n_bytes * 1.05:
        raise ConceptLabError(
            f"{what} needs {n_bytes / 1e9:.2f} GB and {folder} has {free / 1e9:.2f} GB free; "
            "make room, or set CONCEPTLAB_CACHE to a folder on a larger disk."
        )


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `target` (write a file or make a folder there); move it into place on success.

    After an exception or an interrupt `target` is as it was and the temporary is gone. A disk that fills up inside
    the block raises ConceptLabError.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    holder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        temporary = holder / target.name
        yield temporary
        if temporary.is_dir() and target.is_dir():
            shutil.rmtree(target)
        os.replace(temporary, target)
    except Exception as error:
        if not _is_full_disk(error):
            raise
        raise ConceptLabError(
            f"No space left on the disk of {target.parent} while writing {target.name}; "
            "make room, or set CONCEPTLAB_CACHE to a folder on a larger disk."
        ) from None
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def _sweep(target: Path, hours: float = 6.0) -> None:
    """Remove what a killed process left beside `target`: temporaries that nobody has touched for hours."""
    for holder in target.parent.glob(f".{glob.escape(target.name)}.*"):
        if holder.is_dir() and time.time() - holder.stat().st_mtime > 3_600 * hours:
            shutil.rmtree(holder, ignore_errors=True)


def _is_full_disk(error: Exception) -> bool:
    """Whether an error says that the disk is full; safetensors wraps the system's message in its own type."""
    return getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
