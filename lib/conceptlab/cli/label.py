"""Label and score features of dictionaries."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..core import ConceptLabError, say

if TYPE_CHECKING:
    from ..models import LanguageModel


def add(verbs: argparse._SubParsersAction) -> None:
    """The verb and its options."""
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
    verb.add_argument(
        "--export",
        choices=["neuronpedia"],
        help="make nothing; write the labels that are there in this layout, below --out",
    )
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Label and score features of dictionaries into data/labels, or go on with it."""
    from ..autointerp import LabelConfig, check_label_folder, label_dictionaries
    from ..models import load_model

    listed: dict[int, list[int]] = {}
    texts = None
    for name in arguments.features:
        layer, colon, feature = name.partition(":")
        if not (colon and layer.isdecimal() and feature.isdecimal()):
            raise ConceptLabError(f"{name!r} names no feature; write LAYER:FEATURE, for example 6:1203.")
        listed.setdefault(int(layer), []).append(int(feature))
    if arguments.export:
        return _export(arguments)
    cfg = LabelConfig(n=arguments.n, seed=arguments.seed)
    check_label_folder(arguments.out)
    lm = load_model(arguments.model)
    if arguments.concepts is not None:
        texts = _add_candidates(lm, arguments, listed)
    for path in label_dictionaries(lm, arguments.layers, cfg, arguments.out, arguments.saes, listed, texts):
        say(f"{path}: ready")


def _add_candidates(lm: LanguageModel, arguments: argparse.Namespace, listed: dict[int, list[int]]) -> list[str]:
    """Add what PISCES may use for the concepts to the listed features; the texts that make these fire."""
    from ..autointerp import labels_path
    from ..core import NotPossible
    from ..data import label_texts, list_concepts, load_concept
    from ..erasure import Shared, SharedConfig, candidates
    from ..sae import load_shipped, shipped_layers

    concepts = [load_concept(name) for name in arguments.concepts or list_concepts()]
    saes = {layer: load_shipped(lm, layer, arguments.saes) for layer in shipped_layers(lm.name, arguments.saes)}
    path = labels_path(lm.name, 0, arguments.out).with_name("candidates.json")
    cfg = SharedConfig()
    names = ("finding", "n_candidates", "n_evidence", "n_asked", "reach_tau", "min_share")
    settings = {key: getattr(cfg, key) for key in names}

    def find(concept):
        try:
            return Shared(lm, concept, saes, cfg).candidates
        except NotPossible:
            return []  # no feature fires on it: nothing to label

    found = candidates(lm, saes, concepts, path, find, settings)
    wanted = set(saes if arguments.layers is None else map(lm.check_layer, arguments.layers))
    for layer, feature in (place for places in found.values() for place in places):
        if layer in wanted:
            listed.setdefault(layer, []).append(feature)
    return label_texts(concepts)


def _export(arguments: argparse.Namespace) -> None:
    """Write the labels that are there in another project's layout."""
    from ..autointerp import check_label_folder, labelled_layers, read_labels, write_neuronpedia

    if arguments.out is None:
        raise ConceptLabError("An export needs --out FOLDER.")
    check_label_folder(arguments.out)
    layers = arguments.layers or labelled_layers(arguments.model)
    records = [read_labels(arguments.model, layer) for layer in layers]  # all are read before the first is written
    if not records:
        raise ConceptLabError(f"There are no labels of {arguments.model} to export; make them with `conceptlab label`.")
    for found in records:
        for path in write_neuronpedia(found, arguments.model, arguments.out):
            say(f"{path}: ready")
