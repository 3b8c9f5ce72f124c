"""Where numbers come from: versions of what computed them, and the commit of the code."""

from __future__ import annotations

import functools
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "transformers", "numpy")
ROOT = Path(__file__).resolve().parents[3]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on; nothing is imported."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


@functools.cache  # of the code that this process runs; an experiment asks once for every table
def commit(root: Path = ROOT) -> str:
    """Short hash of the library's commit, with " and changes" where its files differ; "unknown" without git."""
    found = _git(root, "rev-parse", "--show-toplevel", "--short", "HEAD").splitlines()
    if len(found) != 2 or Path(found[0]).resolve() != root.resolve():
        return "unknown"  # an export, or a package installed inside another repository
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "lib", "data/concepts")
    return found[1] + (" and changes" if changed else "")


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, encoding="utf-8")
    except OSError:  # no git
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def joined(texts: Iterable[str]) -> str:
    """Distinct texts in their order, one text: several runs made one table."""
    parts = (part for text in texts for part in str(text).split(", "))
    return ", ".join(dict.fromkeys(part for part in parts if part))
