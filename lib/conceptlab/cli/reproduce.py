"""`conceptlab reproduce`: run a long experiment, or go on with it."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path

from ..core import ConceptLabError, check_output, read_table, say, table_path


def add(verbs: argparse._SubParsersAction) -> None:
    """The verb and its options."""
    verb = verbs.add_parser("reproduce", help="run a long experiment into data/results; it can be interrupted")
    verb.add_argument("experiment", help="lab, autointerp, layers, ...; a wrong name lists them all")
    verb.add_argument("--model", default="smollm2-135m", help="registry name, folder or Hub id")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--concepts", nargs="+", help="names in data/concepts; default: all")
    verb.add_argument("--methods", nargs="+", help="lab: of `conceptlab methods`; stages of others; default: all")
    verb.add_argument("--attacks", nargs="+", help="lab: of `conceptlab attack`; default: those of the table")
    verb.add_argument("--attacked", nargs="+", help="lab: methods that are attacked, of those given")
    verb.add_argument("--stages", help="lab: of fit,score,curve,attack; default: all four")
    verb.add_argument("--saes-seed", type=int, default=0, help="lab: dictionaries of `make saes SEED=...`")
    verb.add_argument("--out", type=Path, help="folder for the table; default: data/results")
    verb.add_argument("--replace", action="store_true", help="replace a finished table that was made otherwise")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run a long experiment into data/results, or go on with it."""
    from ..data import list_concepts
    from ..experiments import EXPERIMENTS
    from ..models import load_model

    if arguments.experiment not in EXPERIMENTS:
        raise ConceptLabError(f"Unknown experiment {arguments.experiment!r}; known are {', '.join(EXPERIMENTS)}.")
    experiment, chosen = EXPERIMENTS[arguments.experiment], {}
    takes = inspect.signature(experiment).parameters
    if arguments.concepts:
        if "concepts" not in takes:
            raise ConceptLabError(f"{arguments.experiment} is not divided into concepts; leave --concepts out.")
        there = list_concepts()
        if unknown := [name for name in arguments.concepts if name not in there]:
            raise ConceptLabError(f"No concept {unknown[0]!r} in data/concepts; there are {', '.join(there)}.")
        chosen["concepts"] = arguments.concepts
    for option in ("methods", "stages", "attacks", "attacked"):
        value = getattr(arguments, option)
        if value is not None and option not in takes:
            raise ConceptLabError(f"{arguments.experiment} has no {option}; leave --{option} out.")
        if value is not None:
            chosen[option] = value.split(",") if isinstance(value, str) else value
    if arguments.saes_seed:
        if "dictionary_seed" not in takes:
            raise ConceptLabError(f"{arguments.experiment} takes the shipped dictionaries; leave --saes-seed out.")
        chosen["dictionary_seed"] = arguments.saes_seed
    if arguments.replace and "replace" in takes:
        chosen["replace"] = True
    if arguments.out is not None:
        check_output(arguments.out, folder=True)
    lm = load_model(arguments.model)
    usual = table_path(arguments.experiment, lm.name)
    name = f"{usual.stem}_saes{arguments.saes_seed}.csv" if arguments.saes_seed else usual.name
    path = check_output((arguments.out or usual.parent) / name)
    experiment(lm, path, seed=arguments.seed, **chosen)
    say(f"{path.name}: {len(read_table(path))} rows")
