"""`conceptlab merge`: one table from several."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(verbs: argparse._SubParsersAction) -> None:
    """The verb and its options."""
    verb = verbs.add_parser("merge", help="add finished tables, of other concepts or from other processes, to a table")
    verb.add_argument("table", type=Path, help="the .csv that gets the rows; made where there is none")
    verb.add_argument("parts", nargs="+", type=Path, help="the .csv files whose rows it gets, their .json beside them")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Add the rows of finished tables to a table."""
    from ..core import contents, merge, read_table, say
    from ..experiments import SUMMARIES

    parts = [part for part in arguments.parts if part.exists()]  # one that is not is named by `merge`
    experiment = contents(parts[0]).note.get("experiment", "") if parts else ""  # a note is asked for by `merge`
    path = merge(arguments.table, arguments.parts, SUMMARIES.get(experiment))
    say(f"{path.name}: {len(read_table(path))} rows")
