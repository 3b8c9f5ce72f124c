"""Erase a concept, or export an edited model."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core import ConceptLabError

if TYPE_CHECKING:
    pass


def add(verbs: argparse._SubParsersAction) -> None:
    """The verb and its options."""
    verb = verbs.add_parser("erase", help="erase a concept; the strength is chosen on dev questions")
    verb.add_argument("concept", help="name in data/concepts, or a YAML file of your own")
    verb.add_argument("--model", default="smollm2-135m", help="registry name, folder or Hub id")
    verb.add_argument(
        "--method", default="pisces", help="pisces, pisces_words, words, needle, ...; a wrong name lists them all"
    )
    where = verb.add_mutually_exclusive_group()
    where.add_argument(
        "--features", nargs="+", metavar="LAYER:INDEX[:SIGN]",
        help="edit these features, all of them; SIGN - where minus the feature writes the concept (default: found)",
    )  # fmt: skip
    where.add_argument("--layers", type=int, nargs="+", help="look for features in these (default: all that ship)")
    verb.add_argument(
        "--finding", choices=("reach", "evidence"),
        help="reach: by where an edit acts (default); evidence: by what features read and write, as in the paper",
    )  # fmt: skip
    verb.add_argument("--out", type=Path, help="file for the edit (safetensors)")
    verb.add_argument("--export", type=Path, help="folder for the edited model, to be loaded by plain transformers")
    verb.add_argument("--card", action="store_true", help="score it on the test questions")
    verb.add_argument("--seed", type=int, default=0)
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Erase a concept with a method whose strength is chosen on dev questions; save the edit, or the edited model."""
    from ..data import load_concept
    from ..erasure import WITHOUT_FEATURES, Erasure, ErasureConfig, hand_picked, shipped_dictionaries
    from ..evaluation import compare, scorecard
    from ..models import load_model

    if arguments.out is None and arguments.export is None and not arguments.card:
        raise ConceptLabError("erase needs --out FILE, --export FOLDER or --card, else nothing would be kept.")
    places = [_feature_place(name) for name in arguments.features or ()]
    if (places or arguments.layers or arguments.finding) and arguments.method in WITHOUT_FEATURES:
        raise ConceptLabError(f"{arguments.method} needs no dictionary; leave out --features, --layers and --finding.")
    if places and arguments.finding:
        raise ConceptLabError("Features were given with --features, so there are none to find; leave out --finding.")
    cfg = replace(ErasureConfig(), finding=arguments.finding or "reach")
    layers = sorted({place[0] for place in places}) or arguments.layers
    lm = load_model(arguments.model)
    saes = {} if arguments.method in WITHOUT_FEATURES else shipped_dictionaries(lm, layers)
    features = hand_picked(lm, saes, places) if places else None
    work = Erasure(lm, saes, load_concept(arguments.concept), cfg, arguments.seed, features=features)
    if arguments.finding and work.picked is not None:
        raise ConceptLabError(f"The features published for {arguments.concept} are used here; leave out --finding.")
    edit = work.edit(arguments.method)
    print(f"{arguments.method}: {work.settings.get(arguments.method, {})} {edit.report(lm)}", flush=True)
    if arguments.out is not None:
        edit.save(arguments.out)
    if arguments.export is not None:
        edit.export(lm, arguments.export)
    if arguments.card:
        before = scorecard(lm, work.concept, "test", writing=True)
        with edit.applied(lm):
            after = scorecard(lm, work.concept, "test", writing=True)
        found = compare(before, after)
        for axis in ("efficacy", "specificity", "coherence", "overall"):
            print(f"{axis} {getattr(found, axis)}", flush=True)


def _feature_place(name: str) -> tuple[int, ...]:
    """`LAYER:INDEX` or `LAYER:INDEX:SIGN` as numbers; a sign of - where the concept is written by minus the feature."""
    match = re.fullmatch(r"([0-9]+):([0-9]+)(?::([+-]|[+-]?1))?", name)
    if match is None:
        raise ConceptLabError(f"{name!r} names no feature; write LAYER:INDEX or LAYER:INDEX:SIGN, such as 6:1203:-.")
    return int(match[1]), int(match[2]), -1 if (match[3] or "").startswith("-") else 1
