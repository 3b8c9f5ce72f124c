"""The tidy table of an experiment: one row per number. Columns, cells, and the one reader for finished and unfinished.

`lab_m.csv` holds the numbers and `lab_m.json` where they come from; `lab_m.records.jsonl` (numbers per question) and
the folder `lab_m` (edits) stand beside them where an experiment keeps such things. While the experiment runs all of it
lies in `lab_m.partial.*`, see `Store`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .console import say
from .errors import ConceptLabError
from .files import data_dir
from .journal import lines_of
from .statistics import Interval

COLUMNS = (
    "experiment", "model", "concept", "method", "attack", "budget", "metric", "value", "low", "high", "n", "seed",
)  # fmt: skip
KEY = ("concept", "method", "attack", "budget", "seed")  # what names a cell of the grid
POOLED = "all"  # the concept of rows that sum up over concepts

Row = dict[str, str]
Key = tuple[str, ...]  # the texts of KEY


class Cell(NamedTuple):
    """One piece of the grid: its numbers are computed together and kept or lost together."""

    concept: str = ""
    method: str = ""
    attack: str = ""
    budget: str | int | float = ""
    seed: int | None = None  # None: that of the store


@dataclass
class Contents:
    """What a table holds, wherever it was read from."""

    note: dict[str, Any]  # experiment, model, fingerprint, settings, commit, ...: what the .json says
    cells: dict[Key, list[Row]] = field(default_factory=dict)
    records: dict[Key, Any] = field(default_factory=dict)
    folder: Path | None = None  # of the files of single cells
    finished: bool = True

    @property
    def rows(self) -> list[Row]:
        return [row for rows in self.cells.values() for row in rows]


def table_path(experiment: str, *models: str) -> Path:
    """Where the table of the first of these models lies in data/results that has one; else where the first's would."""
    places = [data_dir() / "results" / f"{experiment}_{model.replace('/', '_')}.csv" for model in models]
    return next((place for place in places if place.exists()), places[0])


def results(experiment: str, model: str) -> list[Row]:
    """Rows of a table of data/results, unfinished or not; none, and a note on how to make it, where there is none."""
    path = table_path(experiment, model)
    if path.exists() or journal_path(path).exists():
        return read_table(path)
    say(f"There is no table of {experiment} for {model} yet: `conceptlab reproduce {experiment} --model {model}`.")
    return []


def read_table(path: Path | str) -> list[Row]:
    """Rows of a finished table, or of the finished cells of an unfinished one. Raises as `contents` does."""
    return contents(path).rows


def journal_path(path: Path) -> Path:
    """The journal of the unfinished table that will stand at `path`."""
    return path.with_suffix(".partial.jsonl")


def files_path(path: Path, run: str = "") -> Path:
    """The folder of the files of single cells: of the run that is under way, or of the finished table."""
    return path.with_suffix(f".partial.files.{run}") if run else path.with_suffix("")


def contents(path: Path | str) -> Contents:
    """Everything about the table at `path` (its .csv), finished or not.

    Raises ConceptLabError when there is none, when a file was cut, altered or is of something else, and when the .csv
    and the .json beside it were not written together.
    """
    path = Path(path)
    journal = journal_path(path)
    unfinished = read_journal(path) if journal.exists() else None
    if unfinished is not None and (unfinished.finished or not path.exists()):
        return unfinished  # `finish` was cut short, and the journal is what it was writing
    if not path.exists():
        raise ConceptLabError(f"There is no table {path.name}; make it with `conceptlab reproduce`.")
    text = _text(path)
    rows, beside = parse(text, path.name), path.with_suffix(".json")
    note = _note(beside) if beside.exists() else {}
    records = path.with_suffix(".records.jsonl")
    if sums := note.get("sha256"):
        told = _text(records) if records.exists() else ""
        if sums != {"csv": digest(text), "records": digest(told)}:
            raise ConceptLabError(
                f"{path.name} and what stands beside it (.json, .records.jsonl) were not written together; "
                "make the table again."
            )
    for name in ("experiment", "model"):
        if note and rows and rows[0][name] != note.get(name):
            raise ConceptLabError(f"{path.name} is of the {name} {rows[0][name]}, its .json of {note.get(name)}.")
    found = Contents(note, cells_of(rows), folder=files_path(path))
    if note.get("sha256") and records.exists():
        pairs = (json.loads(line) for line in told.split("\n") if line)
        found.records = {tuple(key): record for key, record in pairs}
    return found


def read_journal(path: Path) -> Contents | None:
    """What the journal of the table at `path` holds; None where not even its first line is whole."""
    lines, _ = lines_of(journal_path(path))
    if not lines or "begin" not in lines[0]:
        return None
    folder = files_path(path, lines[0]["begin"]["run"])
    found = Contents(dict(lines[0]["begin"]), folder=folder, finished=False)
    for line in lines[1:]:
        for key, rows, *record in line.get("cells", ()):
            shared = (found.note["experiment"], found.note["model"])
            found.cells[tuple(key)] = [
                dict(zip(COLUMNS, (*shared, *key[:4], *row, key[4]), strict=True)) for row in rows
            ]
            found.records.pop(tuple(key), None)
            if record:
                found.records[tuple(key)] = record[0]
        found.note |= line.get("note", {})
        if "finish" in line:
            found.note, found.finished = found.note | line["finish"], True
            found.folder = folder if folder.is_dir() else files_path(path)  # it was moved already
    return found


def cells_of(rows: Iterable[Row]) -> dict[Key, list[Row]]:
    """Rows by the cell that they belong to."""
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[c] for c in KEY), []).append(row)
    return found


def row_interval(row: Mapping[str, str], over: str = "items") -> Interval:
    """The number of a row with its interval; `over`: what the interval is over, which the table does not say."""
    return Interval(float(row["value"]), float(row["low"]), float(row["high"]), int(row["n"]), over)


def as_csv(rows: Iterable[Row]) -> str:
    """The text of a table."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([row[c] for c in COLUMNS] for row in rows)
    return text.getvalue()


def parse(text: str, name: str) -> list[Row]:
    """Rows of a table's text. Raises ConceptLabError with the line of the first that is not a row of it."""
    reader = csv.reader(io.StringIO(text, newline=""))
    if tuple(next(reader, ())) != COLUMNS:
        raise ConceptLabError(f"{name} has not the columns {', '.join(COLUMNS)}; make the table again.")
    rows: list[Row] = []
    seen = set()
    for values in reader:
        row = dict(zip(COLUMNS, values, strict=False))
        what = None if len(values) == len(COLUMNS) else f"{len(values)} values for {len(COLUMNS)} columns"
        what = what or _wrong(row)
        if not what and rows and any(row[c] != rows[0][c] for c in ("experiment", "model")):
            what = f"{row['experiment']} of {row['model']} in a table of another"
        if not what and (key := tuple(row[c] for c in (*KEY, "metric"))) in seen:
            what = f"{row['metric']} of {named(key[:-1])} a second time"
        if what:
            raise ConceptLabError(f"{name}, line {reader.line_num}: {what}; make the table again.")
        seen.add(key)
        rows.append(row)
    if not text.endswith("\n"):
        raise ConceptLabError(f"{name} ends inside a line; make the table again.")
    return rows


def _wrong(row: Mapping[str, str]) -> str | None:
    """What is wrong with the texts of a row. Bounds may be infinite (nothing is known), a value may not."""
    for column in ("value", "low", "high"):
        try:
            number = float(row[column])
        except ValueError:
            return f"{column} is {row[column]!r}, not a number"
        if math.isnan(number) or (column == "value" and math.isinf(number)):
            return f"{column} of {row['metric']} is {row[column]}"
    if float(row["low"]) > float(row["high"]):
        return f"the interval of {row['metric']} ends before it begins ({row['low']} to {row['high']})"
    if not row["metric"].strip() or row["n"].startswith("-"):
        return f"metric is {row['metric']!r} and n {row['n']}"
    for column in ("n", "seed"):
        if not row[column].removeprefix("-").isdecimal():
            return f"{column} is {row[column]!r}, not a whole number"
    return None


def key_of(cell: Cell, seed: int) -> Key:
    """The texts that name a cell in the table; `seed` where it names none itself."""
    concept, method, attack, budget, own = Cell(*cell)
    budget = f"{budget:g}" if isinstance(budget, float) else str(budget)
    return concept, method, attack, budget, str(seed if own is None else own)


def rows_of(note: Mapping[str, Any], key: Key, metrics: Mapping[str, Interval]) -> list[Row]:
    """The rows of a cell; a single item has no interval, so its value stands at both ends (and n is 1).

    Raises ConceptLabError for what a table cannot hold.
    """
    if not metrics:
        raise ConceptLabError(f"The cell {named(key)} holds no number; what is not possible is a number too.")
    rows = []
    for metric, interval in metrics.items():
        alone = int(interval[3]) == 1 and math.isnan(interval[1]) and math.isnan(interval[2])
        texts = [f"{float(x):.5g}" for x in ([interval[0]] * 3 if alone else interval[:3])]
        values = (note["experiment"], note["model"], *key[:4], metric, *texts, str(int(interval[3])), key[4])
        row = dict(zip(COLUMNS, values, strict=True))
        wrong = _wrong(row)
        if not metric or any(c < " " for value in values for c in value):
            wrong = "a name is empty or holds a line break"
        if wrong:
            raise ConceptLabError(f"{named(key)}: {wrong}; it was not written.")
        rows.append(row)
    return rows


def named(key: Key) -> str:
    """A cell as a reader is told of it."""
    return ", ".join(filter(None, key[:-1])) or "the one cell"


def digest(text: str) -> str:
    """What tells a text from another; line breaks that git or an editor changed do not count."""
    return hashlib.sha256(text.replace("\r\n", "\n").encode()).hexdigest()[:16]


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConceptLabError(f"{path} cannot be read ({error}).") from None


def _note(path: Path) -> dict[str, Any]:
    try:
        note = json.loads(_text(path))
    except ValueError:
        note = None
    if not isinstance(note, dict) or not {"experiment", "model", "settings"} <= note.keys():
        raise ConceptLabError(f"{path.name} does not say where a table comes from; make the table again.")
    return note
