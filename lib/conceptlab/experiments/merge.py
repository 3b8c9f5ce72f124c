"""One table from several: a long experiment can be divided over processes, or get another concept later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..core import ConceptLabError, atomic_path
from .table import KEY, read_table, write_table

LISTED = ("concepts", "methods", "notes")  # settings in which parts may differ: the whole has those of all


def merge_tables(into: Path, parts: Sequence[Path]) -> Path:
    """Add the rows of finished tables to the table `into`, and where they come from to its provenance.

    All of one experiment and model, with the same settings but for concepts and methods. Nothing is written unless all
    fit: raises ConceptLabError for a part that is missing, has no provenance or is of something else, for a cell that
    two of them hold with different numbers, and for attacks, whose table sums up over its concepts.
    """
    sources = [path for path in (into, *parts) if path != into or into.exists()]
    if not sources:
        raise ConceptLabError("Give at least one finished table whose rows are to be added.")
    notes, cells = [_provenance(path) for path in sources], {}
    for path, note in zip(sources, notes, strict=True):
        _check_same(notes[0], note, sources[0], path)
        for key, cell in _cells(path).items():
            if cells.setdefault(key, cell) != cell:
                named = ", ".join(filter(None, key[:-1]))
                raise ConceptLabError(f"{path} holds other numbers for {named} than a table before it; remove one.")
    whole = notes[0] | {
        "commit": ", ".join(dict.fromkeys(note["commit"] for note in notes)),
        "minutes": round(sum(note["minutes"] or 0 for note in notes), 1),
        "settings": notes[0]["settings"] | {k: found for k in LISTED if (found := _union(notes, k))},
    }
    into.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(into.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(whole, indent=1) + "\n")
    write_table(into, [row for cell in cells.values() for row in cell])
    return into


def _cells(path: Path) -> dict[tuple[str, ...], list[dict[str, str]]]:
    found: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in read_table(path):
        found.setdefault(tuple(row[c] for c in KEY), []).append(row)
    return found


def _provenance(path: Path) -> dict:
    beside = path.with_suffix(".json")
    if not (path.exists() and beside.exists()):
        raise ConceptLabError(f"There is no finished table {path} with its .json beside it.")
    note = json.loads(beside.read_text())
    if note["experiment"] == "attacks":
        raise ConceptLabError("A table of attacks sums up over its concepts; make it in one run.")
    return note


def _check_same(first: dict, other: dict, one: Path, another: Path) -> None:
    def fixed(note: dict) -> dict:
        named = {k: note[k] for k in ("experiment", "model", "seed")}
        return named | {k: v for k, v in note["settings"].items() if k not in LISTED}

    a, b = fixed(first), fixed(other)
    if changed := sorted(k for k in {*a, *b} if a.get(k) != b.get(k)):
        raise ConceptLabError(f"{another} and {one} do not belong together: they differ in {', '.join(changed)}.")


def _union(notes: Sequence[dict], setting: str) -> list:
    return list(dict.fromkeys(x for note in notes for x in note["settings"].get(setting, ())))
