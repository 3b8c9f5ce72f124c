"""Long experiments."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from ..core import ConceptLabError

if TYPE_CHECKING:
    pass


def add(verbs: argparse._SubParsersAction) -> None:
    """The verb and its options."""
    verb = verbs.add_parser("reproduce", help="run a long experiment into data/results; it can be interrupted")
    verb.add_argument("experiment", help="attacks, autointerp, erasure or layers")
    verb.add_argument("--model", default="smollm2-135m", help="registry name, folder or Hub id")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--concepts", nargs="+", help="names in data/concepts; default: all")
    verb.add_argument("--out", type=Path, help="folder for the table; default: data/results")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run a long experiment into data/results, or go on with it."""
    from ..data import list_concepts
    from ..experiments import EXPERIMENTS, ResultTable
    from ..models import load_model

    if arguments.experiment not in EXPERIMENTS:
        raise ConceptLabError(f"Unknown experiment {arguments.experiment!r}; known are {', '.join(EXPERIMENTS)}.")
    lm = load_model(arguments.model)
    experiment, chosen = EXPERIMENTS[arguments.experiment], {}
    if arguments.concepts:
        if "concepts" not in inspect.signature(experiment).parameters:
            raise ConceptLabError(f"{arguments.experiment} is not divided into concepts; leave --concepts out.")
        there = list_concepts()
        if unknown := [name for name in arguments.concepts if name not in there]:
            raise ConceptLabError(f"No concept {unknown[0]!r} in data/concepts; there are {', '.join(there)}.")
        chosen["concepts"] = arguments.concepts
    table = ResultTable(arguments.experiment, lm, arguments.out, arguments.seed)
    experiment(lm, table, **chosen)
    print(f"{table.path.name}: {len(table.rows)} rows", flush=True)
