"""How a finished table comes into its place: the lock, the comparison of two tables' origins, the last steps.

The journal says what is to be written, so that each of the steps may be cut short and done again.
"""

from __future__ import annotations

import glob
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .errors import ConceptLabError
from .files import atomic_path, sha256, sweep
from .provenance import joined
from .tables import COLUMNS, Contents, Key, Row, as_csv, digest, files_path, journal_path, read_journal

IDENTITY = ("experiment", "model", "fingerprint", "settings", "fingerprints")  # what parts of one table agree in


def lock(file: FileLock, path: Path) -> None:
    """Take the lock of a table. Raises ConceptLabError where another process holds it."""
    try:
        file.acquire(blocking=False)
    except Timeout:
        raise ConceptLabError(
            f"{path} is being written by another process; wait for it, or write to another folder with --out."
        ) from None


def unlock(file: FileLock) -> None:
    """Give the lock back. Its file goes while it is held: filelock notices a lock on a file that is gone."""
    Path(file.lock_file).unlink(missing_ok=True)
    file.release()


def differing(note: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    """In what a table and a run differ, for a reader; "" where they belong together."""
    changed = [k for k in IDENTITY if k not in ("settings", "fingerprints") and note.get(k) != identity[k]]
    for group in ("settings", "fingerprints"):
        a, b = note.get(group) or {}, identity[group] or {}
        changed += [f"{group}: {k}" for k in sorted({*a, *b}) if a.get(k) != b.get(k) or (k in a) != (k in b)]
    return ", ".join(changed)


def merged_sessions(notes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Commit, device and versions of several runs that made one table."""
    names = dict.fromkeys(name for note in notes for name in note["versions"])
    return {k: joined(note[k] for note in notes) for k in ("commit", "device")} | {
        "versions": {name: joined(note["versions"].get(name, "") for note in notes) for name in names}
    }


def closing_note(data: Contents) -> dict[str, Any]:
    """What a finished table says of itself beside its settings: seeds, number of cells, checksums."""
    assert data.folder
    for left in data.folder.glob(".*"):  # temporaries of killed processes: nobody else writes here
        shutil.rmtree(left, ignore_errors=True)
    files = sorted(p for p in data.folder.rglob("*") if p.is_file()) if data.folder.is_dir() else []
    return {
        "seeds": sorted({int(key[4]) for key in data.cells}),
        "cells": len(data.cells),
        "sha256": {"csv": digest(as_csv(data.rows)), "records": digest(_records(data))},
        "files": {p.relative_to(data.folder).as_posix(): sha256(p)[:16] for p in files},
    }


def roll_forward(path: Path) -> None:
    """Carry out, or to its end, what the journal of the table at `path` says is finished. May be killed anywhere."""
    journal = journal_path(path)
    done = read_journal(path) if journal.exists() else None
    if done is None or not done.finished:
        return
    made, kept = files_path(path, done.note["run"]), files_path(path)
    if made.is_dir() or not done.note["files"]:
        if kept.is_dir():
            kept.replace(old := files_path(path, f"{done.note['run']}.old"))
            shutil.rmtree(old, ignore_errors=True)
        if done.note["files"]:
            made.replace(kept)
    records = path.with_suffix(".records.jsonl")
    if done.records:
        _write(records, _records(done))
    else:
        records.unlink(missing_ok=True)
    _write(path, as_csv(done.rows))
    note = {k: v for k, v in done.note.items() if k not in ("run", "replace", "over")}
    _write(path.with_suffix(".json"), json.dumps(note, indent=1, ensure_ascii=False) + "\n")
    sweep_files(path, "")
    journal.unlink()


def sweep_files(path: Path, run: str) -> None:
    """Remove the files of runs that are no more, and what killed processes left half-written."""
    sweep(path.parent, f"{glob.escape(path.stem)}.*")
    prefix = files_path(path, "x").name.removesuffix("x")
    for folder in path.parent.iterdir():
        if folder.name.startswith(prefix) and folder.name != prefix + run:
            shutil.rmtree(folder, ignore_errors=True)


def packed(cells: Mapping[Key, Sequence[Row]], records: Mapping[Key, Any]) -> list[list]:
    """Cells as a line of the journal holds them."""
    return [
        [key, [[row[c] for c in COLUMNS[6:11]] for row in rows], *([records[key]] if key in records else [])]
        for key, rows in cells.items()
    ]


def _records(data: Contents) -> str:
    """In the order of the cells, whatever was computed anew: the checksum must not depend on how often one went on."""
    pairs = ([key, data.records[key]] for key in data.cells if key in data.records)
    return "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)


def standing(path: Path) -> str:
    """What tells the finished table at `path` from another; "" where there is none."""
    return sha256(path)[:16] if path.exists() else ""


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode())
