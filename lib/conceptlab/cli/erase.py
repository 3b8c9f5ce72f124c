"""`conceptlab erase`: erase a concept with any method; save the edit, or export the edited model."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path

from ..core import ConceptLabError, check_output, say


def add(verbs: argparse._SubParsersAction) -> None:
    """The verb and its options."""
    verb = verbs.add_parser("erase", help="erase a concept; the strength is chosen on dev questions")
    verb.add_argument("concept", help="name in data/concepts, or a YAML file of your own")
    verb.add_argument("--model", default="smollm2-135m", help="registry name, folder or Hub id")
    verb.add_argument("--method", default="pisces", help="`conceptlab methods` lists them")
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
    from ..edits import WeightEdit, check_export
    from ..erasure import (
        Shared,
        SharedConfig,
        choose,
        get_method,
        hand_picked,
        needs_dictionaries,
        shipped_dictionaries,
    )
    from ..models import load_model

    if arguments.out is None and arguments.export is None and not arguments.card:
        raise ConceptLabError("erase needs --out FILE, --export FOLDER or --card, else nothing would be kept.")
    if arguments.out is not None:
        check_output(arguments.out)
    if arguments.export is not None:
        check_export(arguments.export)
    method, places = get_method(arguments.method), [_feature_place(name) for name in arguments.features or ()]
    with_features = needs_dictionaries(method.name)
    if (places or arguments.layers or arguments.finding) and not with_features:
        raise ConceptLabError(f"{method.name} needs no dictionary; leave out --features, --layers and --finding.")
    if places and arguments.finding:
        raise ConceptLabError("Features were given with --features, so there are none to find; leave out --finding.")
    concept = load_concept(arguments.concept)
    lm = load_model(arguments.model)
    layers = sorted({place[0] for place in places}) or arguments.layers
    saes = shipped_dictionaries(lm, layers) if with_features else {}
    features = hand_picked(lm, saes, places) if places else None
    cfg = replace(SharedConfig(), finding=arguments.finding or "reach")
    shared = Shared(lm, concept, saes, cfg, arguments.seed, features=features)
    if arguments.finding and shared.picked is not None:
        raise ConceptLabError(f"The features published for {arguments.concept} are used here; leave out --finding.")
    fitted = choose(method, lm, concept, shared)
    edit = fitted.intervention
    if not isinstance(edit, WeightEdit) and (arguments.out is not None or arguments.export is not None):
        raise ConceptLabError(f"{method.name} works at run time and leaves no edit to save; use --card.")
    said = edit.report(lm) if isinstance(edit, WeightEdit) else ""
    say(f"{method.name}: {fitted.setting | {'passed_gates': float(fitted.passed)}} {said}")
    if arguments.out is not None:
        fitted.edit.save(arguments.out)
    if arguments.export is not None:
        fitted.edit.export(lm, arguments.export)
    if arguments.card:
        _print_card(lm, concept, edit)


def _print_card(lm, concept, edit) -> None:
    from ..evaluation import compare, scorecard

    before = scorecard(lm, concept, "test", writing=True)
    with edit.applied(lm):
        after = scorecard(lm, concept, "test", writing=True)
    found = compare(before, after)
    for axis in ("efficacy", "specificity", "specificity_unseen", "coherence", "overall"):
        if (value := getattr(found, axis)) is not None:
            say(f"{axis} {value}")


def _feature_place(name: str) -> tuple[int, ...]:
    """`LAYER:INDEX` or `LAYER:INDEX:SIGN` as numbers; a sign of - where the concept is written by minus the feature."""
    match = re.fullmatch(r"([0-9]+):([0-9]+)(?::([+-]|[+-]?1))?", name)
    if match is None:
        raise ConceptLabError(f"{name!r} names no feature; write LAYER:INDEX or LAYER:INDEX:SIGN, such as 6:1203:-.")
    return int(match[1]), int(match[2]), -1 if (match[3] or "").startswith("-") else 1
