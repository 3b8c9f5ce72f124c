"""Convert dictionaries that others keep as pickles."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(verbs: argparse._SubParsersAction) -> None:
    """The verb and its options."""
    verb = verbs.add_parser("convert", help="a dictionary of dictionary_learning (ae.pt) as files without pickle")
    verb.add_argument("source", type=Path, help="folder with ae.pt and config.json")
    verb.add_argument("--out", type=Path, required=True, help="folder for cfg.json and sae_weights.safetensors")
    verb.add_argument("--model", help="model it is of, where config.json does not say")
    verb.add_argument("--hook", help="place it reads, such as blocks.6.mlp.hook_out, where config.json does not say")
    verb.add_argument("--storage", help="float32 (what sae-lens reads), int8 or int5; default: float32")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Read with `weights_only=True`, check every size and setting, write in SAELens' layout."""
    from ..core import say
    from ..sae import convert

    sae = convert(arguments.source, arguments.out, arguments.model, arguments.hook, arguments.storage)
    cfg = sae.cfg
    say(f"{arguments.out}: {cfg.architecture}, {cfg.d_sae} features of {cfg.hook_name} of {cfg.model_name}")
