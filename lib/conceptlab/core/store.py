"""The one resumable table of all long experiments.

    with Store(path, experiment="lab", model=lm.name, fingerprint=lm.fingerprint(), settings=asdict(cfg)) as store:
        store.progress(cells)
        for cell in cells:
            if store.missing(cell):
                store.add(cell, {"efficacy": bootstrap(...)}, record=per_question)
        store.finish()

A cell counts once its whole line stands in the journal (`<table>.partial.jsonl`), so a kill at any moment costs the
cell under way. `finish` puts the table, its provenance, records and files in their places; a kill inside it is made
good by the next start, and readers take the journal until then.
"""

from __future__ import annotations

import json
import math
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from .console import say
from .errors import ConceptLabError
from .files import atomic_path, check_output
from .journal import Journal, line_of, lines_of
from .provenance import commit, versions
from .publishing import (
    IDENTITY,
    closing_note,
    differing,
    lock,
    merged_sessions,
    packed,
    roll_forward,
    standing,
    sweep_files,
    unlock,
)
from .statistics import Interval
from .tables import (
    POOLED,
    Cell,
    Contents,
    Key,
    Row,
    contents,
    files_path,
    journal_path,
    key_of,
    named,
    read_journal,
    rows_of,
)


class Store:
    """A table of cells that survives an interruption at any moment; a context manager that locks out other writers.

    `fingerprint`: of the model's weights; `fingerprints`: of dictionaries and edits that all cells share, by name.
    Entering goes on with an unfinished run or with the finished table, where both were made in the same way (pooled
    rows, of the concept "all", are computed anew), and refuses others in one sentence. `replace` allows a finished
    table of something else to be replaced, at `finish` and not before.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        experiment: str,
        model: str,
        fingerprint: str = "",
        settings: Mapping[str, Any] | None = None,
        fingerprints: Mapping[str, str] | None = None,
        seed: int = 0,
        device: str = "cpu",
        replace: bool = False,
    ):
        self.path = check_output(Path(path))
        if self.path.suffix != ".csv":
            raise ConceptLabError(f"A table is a .csv file; {self.path.name} is not.")
        self.seed, self.replace = seed, replace
        same = (experiment, model, fingerprint, dict(settings or {}), dict(fingerprints or {}))
        try:
            self._identity = json.loads(json.dumps(dict(zip(IDENTITY, same, strict=True)), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ConceptLabError(f"The settings of {experiment} cannot be written as JSON ({error}).") from None
        self._session = {"commit": commit(), "device": str(device), "versions": versions()}
        self._lock = FileLock(self.path.with_suffix(".partial.lock"))
        self._data = Contents({})
        self._journal: Journal | None = None
        self._open = self._finished = self._noted = False
        self._planned: int | set[Key] | None = None

    # ---- begin and end ------------------------------------------------------------------------------------------
    def __enter__(self) -> Store:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock(self._lock, self.path)
        try:
            roll_forward(self.path)
            self._data = self._resume() or self._take_over()
            sweep_files(self.path, self._data.note["run"])
        except BaseException:
            unlock(self._lock)
            raise
        self._open, self._started, self._done = True, time.monotonic(), 0
        return self

    def __exit__(self, *_) -> None:
        self._open = False
        unlock(self._lock)

    def _resume(self) -> Contents | None:
        """The unfinished run, with what is not whole cut off."""
        journal = journal_path(self.path)
        if not journal.exists():
            return None
        found = read_journal(self.path)
        if found is None:
            raise ConceptLabError(f"How {journal.name} was begun cannot be read; remove it to start afresh.")
        if changed := differing(found.note, self._identity):
            raise ConceptLabError(
                f"{journal.name} was begun otherwise ({changed}); finish it as it was begun, or remove it to start "
                "afresh."
            )
        self._check_over(found)
        lines, sound = lines_of(journal)
        if not sound:
            with atomic_path(journal) as temporary:
                temporary.write_bytes(b"".join(map(line_of, lines)))
        self._journal, self.replace = Journal(journal), found.note["replace"]
        return _without_pooled(found)

    def _take_over(self) -> Contents:
        """A new run; it begins with the cells of the finished table where that was made in the same way."""
        run = {"run": uuid.uuid4().hex[:8], "replace": self.replace, "over": standing(self.path)}
        start = Contents(self._identity | run | {"minutes": 0.0, "commit": "", "device": "", "versions": {}})
        if self.replace or not self.path.exists():
            return start
        before = contents(self.path)
        if before.note and before.note.get("fingerprint") is None:
            raise ConceptLabError(
                f"{self.path.name} is older than fingerprints: nothing beside it says of which weights it is, so it "
                "cannot be added to; write to another folder (--out), or ask for all of it to be replaced (--replace)."
            )
        if changed := differing(before.note, self._identity):
            raise ConceptLabError(
                f"{self.path.name} is a finished table that was made otherwise ({changed}); write to another folder "
                "(--out), or ask for it to be replaced (--replace)."
            )
        start.note |= {k: before.note[k] for k in ("minutes", "commit", "device", "versions")}
        start.cells, start.records = before.cells, before.records
        if before.folder and before.folder.is_dir():
            shutil.copytree(before.folder, files_path(self.path, start.note["run"]))
        return _without_pooled(start)

    def _check_over(self, found: Contents) -> None:
        if found.note["over"] != standing(self.path):
            raise ConceptLabError(
                f"{self.path.name} changed after the run in {journal_path(self.path).name} was begun; move one of the "
                "two away."
            )

    # ---- cells --------------------------------------------------------------------------------------------------
    def missing(self, cell: Cell) -> bool:
        """Whether this cell has still to be computed."""
        return self._key(cell) not in self._data.cells

    def add(self, cell: Cell, metrics: Mapping[str, Interval], record: Any = None) -> None:
        """Keep one cell: metric -> value with interval, and what the caller wants back (JSON), see `record`."""
        self.add_all({cell: metrics}, {} if record is None else {cell: record})

    def add_all(self, cells: Mapping[Cell, Mapping[str, Interval]], records: Mapping[Cell, Any] | None = None) -> None:
        """Keep several cells that were computed together (the strengths of one attack): all of them, or none.

        Raises ConceptLabError, and keeps nothing, for a cell without a number, for NaN, and for an infinite value.
        """
        if not self._open or self._finished:
            raise ConceptLabError(f"{self.path.name} is not open for new cells; enter the Store first.")
        kept = {self._key(cell): record for cell, record in (records or {}).items()}
        found = {(key := self._key(cell)): rows_of(self._identity, key, metrics) for cell, metrics in cells.items()}
        if strange := kept.keys() - found.keys():
            raise ConceptLabError(f"A record of {named(min(strange))} came without the numbers of that cell.")
        self._begin()
        assert self._journal
        lines: list[dict] = [{"cells": packed(found, kept), "note": {"minutes": self.minutes}}]
        if not self._noted:
            lines[0]["note"] |= self._who()
        try:
            self._journal.append(lines)
        except (TypeError, ValueError) as error:
            raise ConceptLabError(
                f"A record of {named(next(iter(found)))} cannot be written as JSON ({error})."
            ) from None
        self._noted = True
        self._data.note |= lines[0]["note"] | {"minutes": self._data.note["minutes"]}
        for key in found:
            self._data.records.pop(key, None)
        self._data.cells |= found
        self._data.records |= {key: json.loads(json.dumps(record)) for key, record in kept.items()}  # as read again
        self._done += len(found)
        self._show()

    @property
    def rows(self) -> list[Row]:
        """Rows of the finished cells."""
        return self._data.rows

    def record(self, cell: Cell) -> Any:
        """What was kept with a cell; None where nothing was."""
        return self._data.records.get(self._key(cell))

    @property
    def folder(self) -> Path:
        """The folder of the files of single cells (write them whole, with `atomic_path`); they live with the table."""
        path = files_path(self.path, "" if self._finished else self._data.note["run"])
        if self._open and not self._finished:
            path.mkdir(exist_ok=True)
        return path

    def _key(self, cell: Cell) -> Key:
        return key_of(cell, self.seed)

    # ---- the journal --------------------------------------------------------------------------------------------
    @property
    def minutes(self) -> float:
        """Time that went into the table, that of interrupted runs included up to their last finished cell."""
        return round(self._data.note["minutes"] + (time.monotonic() - self._started) / 60, 3)

    def _who(self) -> dict[str, Any]:
        """Commit, device and versions of all runs that wrote cells so far."""
        return merged_sessions([self._data.note, self._session])

    def _begin(self) -> None:
        if self._journal is None:
            start = {"begin": self._data.note}
            lines = [start, {"cells": packed(self._data.cells, self._data.records)}]
            with atomic_path(journal_path(self.path)) as temporary:
                temporary.write_bytes(b"".join(map(line_of, lines)))
            self._journal = Journal(journal_path(self.path))

    # ---- progress -----------------------------------------------------------------------------------------------
    def progress(self, cells: int | Sequence[Cell]) -> None:
        """From now on every finished cell prints a line: how many of these (or of this number), and the time left."""
        self._planned = cells if isinstance(cells, int) else {self._key(cell) for cell in cells}
        self._started_at, self._done = time.monotonic(), 0

    def _show(self) -> None:
        if self._planned is None:
            return
        if isinstance(self._planned, int):
            total, there = self._planned, len(self._data.cells)
        else:
            total, there = len(self._planned), len(self._planned & self._data.cells.keys())
        left = math.ceil((time.monotonic() - self._started_at) / 60 / max(1, self._done) * max(0, total - there))
        rest = f", about {left} min left" if there < total else ""
        say(f"{self._identity['experiment']}: {there} of {total} cells, {self.minutes:.0f} min{rest}")

    # ---- the end ------------------------------------------------------------------------------------------------
    def finish(self) -> Path:
        """Put the table in its place, with its provenance, its records and its files; the unfinished one is gone then.

        Raises ConceptLabError, and keeps everything, where there is no cell or another hand changed the finished table.
        """
        if not self._open or not self._data.cells:
            raise ConceptLabError(f"{self.path.name} cannot be finished: no cell was computed.")
        self._check_over(self._data)
        self._begin()
        assert self._journal
        note = self._data.note | ({"minutes": self.minutes} if self._noted else {})
        finished = Contents(note, self._data.cells, self._data.records, files_path(self.path, note["run"]))
        finished.note |= closing_note(finished)
        self._journal.append([{"finish": finished.note}])
        roll_forward(self.path)
        self._finished = True
        return self.path


def _without_pooled(found: Contents) -> Contents:
    """Without the rows that sum up over concepts: with another concept they would be wrong."""
    found.cells = {key: rows for key, rows in found.cells.items() if key[0] != POOLED}
    found.records = {key: record for key, record in found.records.items() if key[0] != POOLED}
    return found
