"""`conceptlab methods`: every method of erasure as a table."""

from __future__ import annotations

import argparse


def add(verbs: argparse._SubParsersAction) -> None:
    """The verb."""
    verb = verbs.add_parser("methods", help="list the methods of erasure: kind, knobs, cost, source")
    verb.add_argument("--kind", help="only those of one kind")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the registry."""
    from ..core import ConceptLabError, say
    from ..erasure import KINDS, methods

    if arguments.kind is not None and arguments.kind not in KINDS:
        raise ConceptLabError(f"Unknown kind {arguments.kind!r}; choose one of {', '.join(KINDS)}.")
    rows = [("name", "kind", "knobs", "cost of one fit", "source")]
    for method in methods().values():
        if arguments.kind in (None, method.kind):
            knobs = ", ".join(f"{k} {min(v):g} to {max(v):g}" for k, v in method.knobs.items()) or "-"
            rows.append((method.name, method.kind, knobs, method.cost or "-", method.source))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip())
