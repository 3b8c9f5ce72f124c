"""The command line: `fetch`, `convert`, `train-sae`, `label`, `methods`, `erase`, `attack`, `reproduce`, `merge`,
`gpu-check`."""

from __future__ import annotations

import argparse
import sys

from ..core import ConceptLabError
from . import attack, convert, erase, fetch, gpu_check, label, merge, methods, reproduce, train_sae

VERBS = (
    fetch,
    convert,
    train_sae,
    label,
    methods,
    erase,
    attack,
    reproduce,
    merge,
    gpu_check,
)  # each has `add` and `run`


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="conceptlab", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in VERBS:
        verb.add(verbs)
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except ConceptLabError as error:
        print(f"conceptlab: {error}", file=sys.stderr)
        return 1
    return 0
