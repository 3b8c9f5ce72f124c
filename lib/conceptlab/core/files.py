"""Files: the cache folder, the data folder, room on the disk, atomic writes, checksums."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import ConceptLabError
from .rename import put_in_place

_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


def cache_dir() -> Path:
    """The cache folder: `CONCEPTLAB_CACHE`, else `conceptlab` in the user's cache folder. Made if absent."""
    named = os.environ.get("CONCEPTLAB_CACHE", "").strip()  # set to nothing is not set: it is not the current folder
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "conceptlab"
    path = Path(named or usual).expanduser().resolve()
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


def check_output(path: Path | str, folder: bool = False) -> Path:
    """The path, where a file (or a `folder`) can be written there; call it before the work starts.

    Raises ConceptLabError for a folder where a file is wanted and the other way round, for a device, a pipe or a link
    (which would be replaced), and where the first folder above that exists cannot be written to. Nothing is made.
    """
    path = Path(path).expanduser()
    if not path.name:
        raise ConceptLabError(f"{str(path)!r} is no name of a {'folder' if folder else 'file'} that can be written.")
    _refuse_odd(path)
    if path.exists() and path.is_dir() != folder:
        kinds = ("a folder; give the name of a file in it", "a file; give the name of a folder")
        raise ConceptLabError(f"{path} is {kinds[folder]}.")
    above = path if folder and path.is_dir() else path.absolute().parent
    while not os.path.lexists(above):
        above = above.parent
    try:
        tempfile.TemporaryFile(dir=above).close()
    except OSError as error:
        raise ConceptLabError(f"{path} cannot be written ({error.strerror}: {above}); choose another place.") from None
    return path


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `target` (write a file or make a folder there); move it into place on success.

    The old or the new `target` is there whole at every moment, also after an exception, Ctrl-C or SIGKILL; of two
    writers the later one stays. What a killed process left beside it is removed by the next call. Files get the mode
    of the umask. A disk that is full or read-only, and a target that is a device or a link, raise ConceptLabError.
    """
    target = Path(target)
    _refuse_odd(target)
    with _sentences(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent, glob.escape(target.name))
        holder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    held = FileLock(holder / "lock")
    try:
        with _sentences(target):
            held.acquire(blocking=False)
            (holder / "held").touch()  # from here on a free lock means that its holder is dead
        temporary = holder / target.name
        with _sentences(target, _FULL):
            yield temporary
        with _sentences(target):
            _as_umask(temporary, holder / "held")
            put_in_place(temporary, target, holder)
    finally:
        try:
            shutil.rmtree(holder, ignore_errors=True)
        except BaseException:  # Ctrl-C inside it
            shutil.rmtree(holder, ignore_errors=True)
            raise
        finally:
            held.release()


@contextmanager
def _sentences(target: Path, numbers: tuple[int, ...] = (*_FULL, *_UNWRITABLE)) -> Iterator[None]:
    """One sentence for a disk that cannot take more."""
    try:
        yield
    except Exception as error:
        # safetensors wraps the system's message in its own type
        full = getattr(error, "errno", None) in _FULL or "No space left on device" in str(error)
        if full:
            raise ConceptLabError(
                f"No space left on the disk of {target.parent} while writing {target.name}; "
                "make room, or set CONCEPTLAB_CACHE to a folder on a larger disk."
            ) from None
        if getattr(error, "errno", None) in numbers:
            raise ConceptLabError(
                f"{target} cannot be written ({error.strerror}); "  # type: ignore[attr-defined]
                "choose a place that you can write to (for the cache: CONCEPTLAB_CACHE)."
            ) from None
        raise


def _refuse_odd(target: Path) -> None:
    """Raise for what a rename would replace by a plain file: a device, a pipe, a socket, a link."""
    try:
        mode = os.lstat(target).st_mode
    except OSError:
        return
    if stat.S_ISLNK(mode):
        raise ConceptLabError(f"{target} is a link to {os.readlink(target)}; give the place that it points to.")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ConceptLabError(f"{target} is no plain file (a device, a pipe or a socket); give another name.")


def _as_umask(made: Path, sample: Path) -> None:
    """Give `made` at least the rights that new files have here; safetensors and tempfile make them private."""
    rights = stat.S_IMODE(sample.stat().st_mode)
    for path in [made, *(made.rglob("*") if made.is_dir() else ())]:
        if not path.is_symlink():
            more = rights | (rights & 0o444) >> 2 if path.is_dir() else rights
            path.chmod(stat.S_IMODE(path.stat().st_mode) | more)


def sweep(folder: Path, name: str = "*", hours: float = 6.0) -> None:
    """Remove the temporaries of `atomic_path` that killed processes left in a folder, for targets like `name` (a glob).

    A free lock says that the process is dead; where there is none yet, hours without a change do.
    """
    for holder in folder.glob(f".{name}.*"):
        with suppress(OSError, Timeout):
            if not holder.is_dir() or holder.is_symlink():
                continue
            if (holder / "held").exists():
                with FileLock(holder / "lock", blocking=False):
                    shutil.rmtree(holder, ignore_errors=True)
            elif name != "*" and time.time() - holder.stat().st_mtime > 3_600 * hours:
                shutil.rmtree(holder, ignore_errors=True)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
