"""The command line: `fetch`, `convert`, `train-sae`, `label`, `methods`, `erase`, `attack`, `reproduce`, `merge`,
`gpu-check`, `progress`, `grade`."""

from __future__ import annotations

import argparse

from ..core import ConceptLabError, say
from . import attack, convert, erase, fetch, gpu_check, grade, label, merge, methods, progress, reproduce, train_sae

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
    progress,
    grade,
)  # each has `add` and `run`
INTERRUPTED = 130  # the exit status that shells give for Ctrl-C


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
        say(f"conceptlab: {error}", error=True)
        return 1
    except KeyboardInterrupt:
        say("conceptlab: interrupted; what was finished is kept.", error=True)
        return INTERRUPTED
    return 0
