"""One table from several: a long experiment can be divided over processes, or get another concept later."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from .console import say
from .errors import ConceptLabError
from .files import atomic_path, check_output, sha256
from .journal import line_of
from .publishing import closing_note, differing, lock, merged_sessions, packed, roll_forward, unlock
from .statistics import Interval
from .tables import POOLED, Cell, Contents, contents, files_path, journal_path, key_of, named, rows_of

LISTED = ("concepts", "methods")  # settings of older tables in which parts may differ: the whole has those of all

Summarise = Callable[[Contents], Mapping[Cell, Mapping[str, Interval]]]


def merge(into: Path, parts: Sequence[Path], summarise: Summarise | None = None) -> Path:
    """Add the cells, records and files of finished tables to the table `into`, which is made where there is none.

    Rows that sum up over concepts (concept "all") are computed anew by `summarise` from the merged contents, or left
    out. Nothing is written unless all fits: raises ConceptLabError for a part that is missing, unfinished, damaged,
    without provenance, or made otherwise, and for a cell or file that two of them hold with different contents.
    """
    into = check_output(Path(into))
    if into.suffix != ".csv":
        raise ConceptLabError(f"A table is a .csv file; {into.name} is not, so nothing is added to it.")
    into.parent.mkdir(parents=True, exist_ok=True)
    file = FileLock(into.with_suffix(".partial.lock"))
    lock(file, into)
    try:
        roll_forward(into)
        if journal_path(into).exists():
            raise ConceptLabError(f"{into.name} is not finished ({journal_path(into).name} is there); finish it first.")
        sources = list(dict.fromkeys(p.resolve() for p in (*([into] if into.exists() else []), *parts)))
        if not parts or not sources:
            raise ConceptLabError("Give at least one finished table whose rows are to be added.")
        found = [_part(path) for path in sources]
        whole = _whole(found, sources)
        _write(into, whole, found, summarise)
    finally:
        unlock(file)
    return into


def _part(path: Path) -> Contents:
    """A finished table. Its concepts are those it says."""
    if not (path.exists() and path.with_suffix(".json").exists()):
        raise ConceptLabError(f"There is no finished table {path} with its .json beside it.")
    part = contents(path)
    if not part.finished:
        raise ConceptLabError(f"{path} is not finished; finish it first.")
    if not part.cells:
        raise ConceptLabError(f"{path} holds no row.")
    there = {key[0] for key in part.cells}
    if absent := [name for name in part.note["settings"].get("concepts", ()) if name not in there]:
        raise ConceptLabError(
            f"{path.with_suffix('.json')} lists {', '.join(absent)}, of which {path.name} has no row."
        )
    if (n := part.note.get("cells")) not in (None, len(part.cells)):
        raise ConceptLabError(f"{path.name} has {len(part.cells)} cells, its .json says {n}.")
    return part


def _whole(parts: Sequence[Contents], paths: Sequence[Path]) -> Contents:
    """Everything but the files, checked."""
    first, whole = _identity(parts[0].note), Contents({})
    minutes = 0.0
    for part, path in zip(parts, paths, strict=True):
        if {key for key in part.cells if key[0] != POOLED} - whole.cells.keys():
            minutes += part.note.get("minutes") or 0  # of parts that bring something
        if changed := differing(_identity(part.note), first):
            raise ConceptLabError(f"{path} and {paths[0]} do not belong together: they differ in {changed}.")
        for key, rows in part.cells.items():
            if key[0] == POOLED:
                continue
            if whole.cells.setdefault(key, rows) != rows or (
                key in whole.records and whole.records[key] != part.records.get(key)
            ):
                raise ConceptLabError(
                    f"{path} holds other numbers for {named(key)} than a table before it; remove one."
                )
            if key in part.records:
                whole.records[key] = part.records[key]
    notes = [part.note for part in parts]
    whole.note = parts[0].note | merged_sessions([{"versions": {}, "commit": "", "device": ""} | n for n in notes])
    whole.note["minutes"] = round(minutes, 3)
    listed = {k: _union(notes, k) for k in LISTED if any(k in note["settings"] for note in notes)}
    whole.note["settings"] = notes[0]["settings"] | listed
    return whole


def _write(into: Path, whole: Contents, parts: Sequence[Contents], summarise: Summarise | None) -> None:
    run = uuid.uuid4().hex[:8]
    whole.note |= {"run": run, "replace": True, "over": ""}
    whole.folder = files_path(into, run)
    try:
        _gather(parts, whole.folder)
        if summarise is not None:
            seed = min(int(key[4]) for key in whole.cells)
            for cell, metrics in summarise(whole).items():
                key = key_of(cell, seed)
                whole.cells[key] = rows_of(whole.note, key, metrics)
        elif any(key[0] == POOLED for part in parts for key in part.cells):
            say(f'The rows that sum up over concepts (concept "{POOLED}") were left out; they are no longer right.')
        finish = whole.note | closing_note(whole)
    except BaseException:
        shutil.rmtree(whole.folder, ignore_errors=True)
        raise
    lines = [{"begin": whole.note}, {"cells": packed(whole.cells, whole.records)}, {"finish": finish}]
    with atomic_path(journal_path(into)) as temporary:  # from here on it is carried out, if need be by the next start
        temporary.write_bytes(b"".join(map(line_of, lines)))
    roll_forward(into)


def _gather(parts: Sequence[Contents], folder: Path) -> None:
    """Copy the files of all parts together."""
    for part in parts:
        if part.folder is None or not part.folder.is_dir():
            continue
        for file in sorted(part.folder.rglob("*")):
            if not file.is_file():
                continue
            target = folder / file.relative_to(part.folder)
            if target.exists() and sha256(target) != sha256(file):
                raise ConceptLabError(f"{file} differs from the file of this name of a table before it; remove one.")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def _identity(note: Mapping[str, Any]) -> dict[str, Any]:
    kept = {k: note.get(k) for k in ("experiment", "model", "fingerprint", "fingerprints")}
    return kept | {"settings": {k: v for k, v in note["settings"].items() if k not in LISTED}}


def _union(notes: Sequence[Mapping[str, Any]], setting: str) -> list:
    return list(dict.fromkeys(x for note in notes for x in note["settings"].get(setting, ())))
