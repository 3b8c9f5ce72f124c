"""Ctrl-C at the wrong moment: exceptions raised by signal handlers wait until what must not be cut in two is done.

Python runs a signal's handler between any two instructions, also between a `with` statement and the first line of
`__exit__`, where no `try` can stand. So while something is held, a handler of ours stands before the handler that was
there: it looks at the frame that was interrupted and, inside a protected piece of code, knocks again a moment later.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

WAIT = 0.002  # seconds until a signal that came at the wrong moment is delivered again
_SIGNALS = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGBREAK", "SIGINT")  # SIGINT last: see
_NUMBERS = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]  # `release_signals`

_files = {contextlib.__file__, __file__}  # whose frames are never interrupted themselves; what they call may be
_whole: set[tuple[str, str]] = set()  # (file, function): nor is anything that these call
_before: dict[int, Callable[[int, FrameType | None], Any]] = {}  # signal -> the handler that stood there
_held = 0


def protect(file: str, *functions: str) -> None:
    """Keep signals out of the code of one source file, and out of all that its `functions` call."""
    _files.add(file)
    _whole.update((file, name) for name in functions)


def hold_signals() -> bool:
    """From now on, signals wait for protected code. Whether they do: handlers belong to the main thread."""
    global _held
    if threading.current_thread() is not threading.main_thread():
        return False
    for number in _NUMBERS:
        handler = signal.getsignal(number)
        if callable(handler) and handler is not _handle:  # the system's own (default, ignore) raise nothing in Python
            _before[number] = handler
            signal.signal(number, _handle)
    _held += 1
    return True


def release_signals() -> None:
    """Undo one `hold_signals`; the last one puts back the handlers, where nobody has set others since.

    SIGINT is put back last, so that a Ctrl-C meets protected code until there is nothing left to do.
    """
    global _held
    if threading.current_thread() is not threading.main_thread():
        return
    _held = max(0, _held - 1)
    if not _held:
        for number in _NUMBERS:
            if signal.getsignal(number) is _handle:
                signal.signal(number, _before[number])


def _handle(number: int, frame: FrameType | None) -> None:
    if _protected(frame):
        _thread.start_new_thread(_knock_again, (number,))
    else:
        _before[number](number, frame)


def _protected(frame: FrameType | None) -> bool:
    if frame is not None and frame.f_code.co_filename in _files:
        return True
    while frame is not None:
        if (frame.f_code.co_filename, frame.f_code.co_name) in _whole:
            return True
        frame = frame.f_back
    return False


def _knock_again(number: int) -> None:
    time.sleep(WAIT)
    _thread.interrupt_main(signal.Signals(number))
