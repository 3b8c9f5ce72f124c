"""A file of self-checking lines: what was written whole is kept, what a kill tore is recognised.

A line is `<first 16 hexadecimal digits of the SHA-256 of the text> <JSON text>` and a line break.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .errors import ConceptLabError


def line_of(content: Any) -> bytes:
    """One line. Raises ValueError where the content has no JSON (NaN, other types)."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return _sum(text) + b" " + text + b"\n"


def lines_of(path: Path) -> tuple[list[Any], bool]:
    """What the whole lines of a journal hold, and whether every byte belonged to one."""
    found, sound = [], True
    for line in path.read_bytes().splitlines(keepends=True):
        digest, _, text = line.removesuffix(b"\n").partition(b" ")
        if line.endswith(b"\n") and digest == _sum(text):
            found.append(json.loads(text))
        else:
            sound = False
    return found, sound


class Journal:
    """Appends lines to a file that exists; each is on the disk before `append` returns."""

    def __init__(self, path: Path):
        self.path = path
        self._length = path.stat().st_size

    def append(self, contents: Iterable[Any]) -> None:
        """Add lines, all or none. An interrupt or a full disk leaves at most bytes that the next call cuts off."""
        data = b"".join(map(line_of, contents))
        try:
            with open(self.path, "r+b", buffering=0) as file:
                file.truncate(self._length)
                file.seek(self._length)
                if file.write(data) != len(data):
                    raise OSError("a part of the line was written")
                os.fsync(file.fileno())
        except OSError as error:
            raise ConceptLabError(
                f"{self.path} cannot be written ({error.strerror or error}); what was finished before is kept, "
                "make room and start again."
            ) from None
        self._length += len(data)


def _sum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:16].encode()
