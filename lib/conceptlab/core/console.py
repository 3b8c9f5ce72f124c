"""Lines on the console that never stop a long experiment."""

from __future__ import annotations

import os
import sys


def say(text: str) -> None:
    """Print a line at once. A reader that has gone (`... | head -1`) ends the printing, not the work."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Else every later line, and Python's own flush at the end, would raise again.
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (OSError, ValueError):  # a replaced stdout without a descriptor
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
