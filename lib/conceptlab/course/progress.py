"""What a run says while it computes: the section, the cell, a clock, and how long the rest should take."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from nbformat import NotebookNode

from ..core import say
from . import notebook as nbfile

EVERY = 20.0  # seconds between two lines while a cell runs
SHORT = 1.0  # a cell below that has no line of its own, in seconds
UNKNOWN = 180.0  # seconds for a notebook that has never run here and does not say how long it takes


@dataclass
class Clock:
    """Time of a whole run: what has passed, and what should be left."""

    expected: Mapping[str, float]  # seconds by notebook, in the order of the run
    start: float = field(default_factory=time.monotonic)

    def left(self, name: str, spent: float) -> float:
        """Seconds from here to the end of the run, of which the notebook `name` has spent some."""
        names = list(self.expected)
        later = sum(self.expected[n] for n in names[names.index(name) + 1 :])
        return max(0.0, self.expected[name] - spent) + later

    def passed(self) -> float:
        return time.monotonic() - self.start


def expected_seconds(nb: NotebookNode, before: float | None) -> float:
    """Of a notebook: what its last run here took (minutes `before`), else what its own box says, else three minutes."""
    if before:
        return 60 * before
    found = re.search(r"\*\*Time:\*\*[^.;]*?(\d+)\s+minutes?", nb.cells[0].source if nb.cells else "")
    return 60.0 * int(found.group(1)) if found else UNKNOWN


class Progress:
    """Lines for one notebook; a thread speaks while a cell runs. Use as a context around the execution.

    `every`: seconds between two lines of a cell that runs on.
    """

    def __init__(self, name: str, nb: NotebookNode, clock: Clock, every: float = EVERY):
        self.name, self.clock, self.every = name, clock, every
        self.sections = section_names(nb)
        self.n, self.i, self.begun = len(self.sections), 0, time.monotonic()
        self.cell_start, self.running = self.begun, False
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.thread = threading.Thread(target=self._speak, daemon=True)

    def __enter__(self) -> Progress:
        say(f"{self.name}: {self.n} cells, about {minutes(self.clock.expected.get(self.name, UNKNOWN))}")
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        self.thread.join()

    def begin(self, i: int) -> None:
        """Cell `i` (from 1) starts."""
        with self.lock:
            self.i, self.cell_start, self.running = i, time.monotonic(), True

    def end(self) -> None:
        """The cell has ended; said only if it took a second or more."""
        with self.lock:
            self.running, took = False, time.monotonic() - self.cell_start
        if took >= SHORT:
            say(self.line(f"{took:.1f} s"))

    def line(self, what: str) -> str:
        """Where the run is, `what` happened, and the clocks, in at most 100 columns."""
        spent = time.monotonic() - self.begun
        where = f"{self.name}  cell {self.i}/{self.n}  "
        left = minutes(self.clock.left(self.name, spent))
        clocks = f"  {minutes(spent)}, all {minutes(self.clock.passed())}, left about {left}"
        room = 100 - len(where) - len(what) - len(clocks) - 2
        section = self.sections[self.i - 1] if self.i else ""
        if len(section) > room:
            section = section[: max(0, room - 1)].rstrip() + "\u2026" if room > 8 else ""
        return f"{where}{section}  {what}{clocks}".rstrip()

    def _speak(self) -> None:
        last = time.monotonic()
        while not self.stop.wait(min(1.0, self.every / 4)):
            with self.lock:
                running, since = self.running, self.cell_start
            now = time.monotonic()
            if running and now - max(last, since) >= self.every:
                last = now
                say(self.line(f"running {now - since:.0f} s"))


def section_names(nb: NotebookNode) -> Sequence[str]:
    """The heading above each code cell, in plain words."""
    names, heading = [], ""
    for cell in nb.cells:
        if cell.cell_type == "code":
            names.append(heading)
            continue
        heads = re.findall(r"^#{1,4}\s+(.+)$", cell.source, re.M)
        heading = re.sub(r"[`$*]", "", heads[-1]).strip() if heads else heading
    assert len(names) == len(nbfile.code_cells(nb))
    return names


def minutes(seconds: float) -> str:
    """A duration as m:ss, with hours where there are any."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
