"""Put a file or folder in the place of another, so that one of the two is there at every moment."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

from .errors import ConceptLabError

_HERE = -100  # AT_FDCWD: paths are relative to the current folder
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS


def put_in_place(made: Path, target: Path, aside: Path) -> None:
    """Move `made` to `target`; what stood there goes into the folder `aside`. All on one disk.

    A folder is exchanged with the old one in one step where the system can; else the old one is moved aside first and
    put back if the second step does not come about.
    """
    if not made.is_dir():
        if target.is_dir():
            raise ConceptLabError(f"{target} is a folder; give the name of a file.")
        os.replace(made, target)
        return
    for i in range(100):  # other writers of the same folder come between two steps
        if target.is_file():
            raise ConceptLabError(f"{target} is a file; give the name of a folder.")
        try:
            os.rename(made, target)  # nothing or an empty folder stands there
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        try:
            if _exchange(made, target):
                return
            _two_steps(made, target, aside / f"old{i}")
            return
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                raise
    raise ConceptLabError(f"{target} is being replaced by others all the time; call again.")


def _two_steps(made: Path, target: Path, old: Path) -> None:
    done = False
    try:
        os.rename(target, old)
        os.rename(made, target)
        done = True
    finally:
        if not done and old.exists() and not target.exists():
            os.rename(old, target)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two paths in one step; False where the system or the disk cannot. Raises OSError otherwise."""
    libc = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    name = "renameatx_np" if sys.platform == "darwin" else "renameat2"
    if libc is None or not hasattr(libc, name):
        return False
    here = -2 if sys.platform == "darwin" else _HERE
    if getattr(libc, name)(here, os.fsencode(a), here, os.fsencode(b), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(b))
