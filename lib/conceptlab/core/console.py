"""Lines on the console that never stop a long experiment."""

from __future__ import annotations

import os
import sys


def say(text: str, error: bool = False) -> None:
    """Print a line at once, an `error` on stderr. A reader that has gone (`... | head -1`) ends the printing only."""
    stream = sys.stderr if error else sys.stdout
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        # Else every later line, and Python's own flush at the end, would raise again.
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        except (OSError, ValueError):  # a replaced stream without a descriptor
            setattr(sys, "stderr" if error else "stdout", open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
