"""The tidy table of an experiment: one row per number, finished cells kept when a run is interrupted."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..core import COLUMNS, KEY, ConceptLabError, Interval, atomic_path, commit, read_table, table_path, versions
from ..models import LanguageModel


class ResultTable:
    """Rows of one experiment on one model, written to disk after every cell.

    While the experiment runs they lie in `<name>_<model>.partial.csv`; `close` moves them to `<name>_<model>.csv` and
    writes where they come from beside it. A cell that is already there is skipped (`missing`).
    """

    def __init__(self, experiment: str, lm: LanguageModel, folder: Path | None = None, seed: int = 0):
        self.experiment, self.model, self.seed = experiment, lm.name, seed
        self.device = str(lm.device)
        usual = table_path(experiment, lm.name)
        self.path = (folder or usual.parent) / usual.name
        self.partial = self.path.with_suffix(".partial.csv")
        self._note = self.partial.with_suffix(".settings.json")
        self.rows = read_table(self.partial) if self.partial.exists() else []
        self._settings: dict | None = None
        self._started, self._before = time.monotonic(), 0.0  # minutes of the runs that were interrupted

    @property
    def minutes(self) -> float:
        """Time that went into the table, that of interrupted runs included up to their last finished cell."""
        return self._before + (time.monotonic() - self._started) / 60

    def begin(self, **settings) -> None:
        """Say how the cells are computed, before the first one.

        Raises ConceptLabError where those so far were computed otherwise or that is not known, and where a finished
        table would be replaced by one that lacks some of its `concepts`.
        """
        now = json.loads(json.dumps(settings))
        if self.rows:
            if not self._note.exists():
                raise ConceptLabError(f"How {self.partial.name} was begun is not known; remove it.")
            note = json.loads(self._note.read_text())
            before, self._before = note["settings"], note["minutes"]
            if changed := sorted(k for k in {*before, *now} if before.get(k) != now.get(k)):
                raise ConceptLabError(
                    f"{self.partial.name} was begun with other settings ({', '.join(changed)}); finish it with those, "
                    "or remove it."
                )
        if "concepts" in now and self.path.exists():
            # "all" and an invented subject are no concepts; which there are says the provenance
            beside = self.path.with_suffix(".json")
            there = json.loads(beside.read_text())["settings"].get("concepts", ()) if beside.exists() else ()
            if lost := [name for name in there if name not in now["concepts"]]:
                raise ConceptLabError(
                    f"{self.path.name} holds other concepts ({', '.join(lost)}), which would be lost; write to another "
                    "folder with --out, and put the tables together with `conceptlab merge`."
                )
        self._settings = now
        self._keep_note()

    def _keep_note(self) -> None:
        if self._settings is not None:
            self._note.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self._note) as temporary:
                temporary.write_text(json.dumps({"settings": self._settings, "minutes": self.minutes}) + "\n")

    def missing(self, concept: str = "", method: str = "", attack: str = "", budget: float | int | str = "") -> bool:
        """Whether this cell of the grid has still to be computed."""
        wanted = (concept, method, attack, str(budget), str(self.seed))
        return all(tuple(row[c] for c in KEY) != wanted for row in self.rows)

    def add(
        self,
        found: dict[str, Interval],
        concept: str = "",
        method: str = "",
        attack: str = "",
        budget: float | int | str = "",
    ) -> None:
        """Keep one cell: metric -> value with interval."""
        for metric, interval in found.items():
            cell = (self.experiment, self.model, concept, method, attack, str(budget), metric)
            numbers = [f"{x:.5g}" for x in interval[:3]]
            self.rows.append(dict(zip(COLUMNS, (*cell, *numbers, str(interval.n), str(self.seed)), strict=True)))
        write_table(self.partial, self.rows)
        self._keep_note()

    def close(self, **settings) -> Path:
        """Finish: move the table to its place and write its provenance."""
        provenance = {
            "experiment": self.experiment, "model": self.model, "commit": commit(), "seed": self.seed,
            "device": self.device, "minutes": round(self.minutes, 1),
            "versions": versions(),
            "settings": settings,
        }  # fmt: skip
        with atomic_path(self.path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(provenance, indent=1) + "\n")
        write_table(self.path, self.rows)
        for left in (self.partial, self._note):
            left.unlink(missing_ok=True)
        return self.path


def write_table(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_plain(rows))


def _plain(rows: Iterable[dict[str, str]]) -> Iterable[dict[str, str]]:
    return ({c: row[c] for c in COLUMNS} for row in rows)
