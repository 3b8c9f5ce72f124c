"""`conceptlab grade FOLDER`: run copies of notebooks and write their points into a CSV."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(verbs: argparse._SubParsersAction) -> None:
    """The verb."""
    verb = verbs.add_parser("grade", help="run the copies in a folder, one process each, and write their points")
    verb.add_argument("folder", type=Path, help="holds copies, in folders of their own where there are many readers")
    verb.add_argument("--out", type=Path, help="the CSV (grades.csv in the folder unless given)")
    verb.add_argument("--minutes", type=float, default=30.0, help="limit of one copy")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Grade and say where the table lies."""
    from ..core import ConceptLabError, say
    from ..course import grade_folder

    if not arguments.folder.is_dir():
        raise ConceptLabError(f"{arguments.folder} is no folder; give the one that holds the copies.")
    if arguments.minutes <= 0:
        raise ConceptLabError("--minutes must be more than 0.")
    out = arguments.out or arguments.folder / "grades.csv"
    grade_folder(arguments.folder, out, arguments.minutes, say)
    say(f"Written: {out}")
