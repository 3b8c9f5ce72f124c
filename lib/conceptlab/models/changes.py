"""What is on a model at the moment: a stack of changes, which come off last first and leave every bit as it was.

A `Change` is a context manager. Edits of weights, training, rounding, hooks and untied embeddings are all made of it,
so that their order is checked across kinds.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..core import ConceptLabError, hold_signals, protect, release_signals

protect(sys._getframe().f_code.co_filename, "take_off")  # a Ctrl-C in here comes before it all or after it all
protect(torch.autograd.grad_mode.__file__)  # else one at the end of `no_grad` leaves gradients off for good
_lock = threading.Lock()


class Change:
    """One change of a model: made by `begin(change)` on entering, taken off to the bit on leaving.

    `begin` says what is to be undone *before* it does it: `change.keep(parameter)` for a weight that it is going to
    write, `change.then(function)` for anything else. What it returns is what `as` gets (default: the model). A block
    that ends always leaves the model as that block found it. Raises ConceptLabError, then, for changes inside it that
    were still on (a generator left open); and at once for other threads than the one that is changing the model.
    """

    def __init__(self, lm: Any, what: str, begin: Callable[[Change], object], weights: bool = True):
        self.lm, self.what, self.begin = lm, what, begin  # lm: a LanguageModel, which this module stands below
        self.weights = weights  # whether it writes weights; hooks do not
        self.base: str | None = None  # while on: fingerprint of the weights below every change
        self._undo: list[Callable[[], object]] = []
        self._held = False

    def __enter__(self):
        held = hold_signals()
        try:
            self.lm.changes.push(self)
        except BaseException:
            if held:
                release_signals()
            raise
        self._held = held
        try:
            found = self.begin(self)
        except BaseException:
            self.lm.changes.take_off(self)
            raise
        return self.lm if found is None else found

    def __exit__(self, kind, *_error) -> None:
        left = self.lm.changes.take_off(self)
        if left is not None and kind is None:  # where an error is on its way already, it says more
            raise ConceptLabError(left)

    @torch.no_grad()
    def keep(self, parameter: nn.Parameter) -> None:
        """Remember a weight's bits; they are put back when the change comes off."""
        original, state = parameter.detach().clone(), (parameter.data_ptr(), parameter._version)

        def put_back() -> None:
            with torch.no_grad():
                parameter.copy_(original)
            self.lm.weights_are_back(parameter, state)

        self._undo.append(put_back)

    def then(self, function: Callable[[], object]) -> None:
        """Call `function` when the change comes off; what was said last is called first."""
        self._undo.append(function)

    def _off(self) -> None:
        failed = None
        while self._undo:
            try:
                self._undo[-1]()
            except Exception as error:  # the other steps come first
                failed = failed or error
            self._undo.pop()
        self.base = None
        if self._held:
            self._held = False
            release_signals()
        if failed is not None:
            raise failed


class Changes:
    """The changes that are on one model, the latest last."""

    def __init__(self, lm: Any):
        self._lm = lm  # a LanguageModel
        self._on: list[Change] = []
        self._thread: threading.Thread | None = None  # the one that has put them there

    def __len__(self) -> int:
        return len(self._on)

    def __iter__(self):
        return iter(tuple(self._on))

    def base(self) -> str:
        """The fingerprint of the weights below everything that is on: which model this is."""
        found = next((change.base for change in self._on if change.base is not None), None)
        return self._lm.fingerprint() if found is None else found

    def push(self, change: Change) -> None:
        """Put a change on top. Raises for one that is on already and for another thread."""
        base = self.base() if change.weights else None
        with _lock:
            self._check_thread()
            if change in self._on:
                raise ConceptLabError(f"This change ({change.what}) is on {self._lm.name} already; make another.")
            self._thread = threading.current_thread()
            change.base = base
            self._on.append(change)

    def take_off(self, change: Change) -> str | None:
        """Take a change off, and first those above it. Returns a sentence where there was something above it."""
        self._check_thread()
        if change not in self._on:
            return (
                f"The change {change.what} of {self._lm.name} had been taken off before its block ended, because the "
                "block around it ended first; close blocks in the reverse order of opening."
            )
        above = [c.what for c in self._on[self._on.index(change) + 1 :]]
        while change in self._on:
            try:
                self._on[-1]._off()
            finally:
                self._on.pop()
        if not self._on:
            self._thread = None
        if not above:
            return None
        return (
            f"{' and '.join(above)} on {self._lm.name} was still open when {change.what} around it ended; all of it "
            "has been taken off: close blocks (and generators) in the reverse order of opening."
        )

    def clear(self) -> list[str]:
        """Take everything off, whoever put it there; says what it was."""
        self._check_thread()
        found = [change.what for change in self._on]
        if self._on:
            self.take_off(self._on[0])
        return found

    def _check_thread(self) -> None:
        owner = self._thread
        if self._on and owner is not None and owner is not threading.current_thread() and owner.is_alive():
            raise ConceptLabError(
                f"Another thread is changing {self._lm.name} ({self._on[-1].what}); a model can be changed by one "
                "thread at a time, so wait for it or give each thread a model of its own."
            )
