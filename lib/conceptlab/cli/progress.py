"""`conceptlab progress`: what the checks of the exercises have recorded."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(verbs: argparse._SubParsersAction) -> None:
    """The verb."""
    verb = verbs.add_parser("progress", help="points per exercise, as the checks recorded them")
    verb.add_argument("--record", type=Path, help="the record (build/progress.json unless given)")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print one line per exercise of every notebook that was begun, and the sum of each."""
    from ..core import say
    from ..course import progress_lines, read_record, record_file

    for line in progress_lines(read_record(arguments.record or record_file())):
        say(line)
