"""Train dictionaries."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..core import ConceptLabError, say

if TYPE_CHECKING:
    from ..models import LanguageModel
    from ..sae import TrainConfig, World


def add(verbs: argparse._SubParsersAction) -> None:
    """The verb and its options."""
    verb = verbs.add_parser("train-sae", help="train dictionaries of MLP outputs")
    verb.add_argument("--model", default="smollm2-135m", help="registry name, folder or Hub id")
    verb.add_argument("--layers", type=int, nargs="+", help="0-based; negative ones from the end")
    verb.add_argument("--shipped", action="store_true", help="fill data/saes: --model, --layers, --out, --seed count")
    verb.add_argument("--architecture", default="topk", help="relu, gated, topk, batchtopk or jumprelu")
    verb.add_argument("--d-sae", type=int, default=4_096, help="features")
    verb.add_argument("--k", type=int, default=32, help="active features per token (topk, batchtopk)")
    verb.add_argument("--sparsity", type=float, help="penalty of the others; default: the architecture's")
    verb.add_argument("--lr", type=float, help="learning rate; default: the architecture's")
    verb.add_argument("--tokens", type=int, default=1_500_000, help="tokens to harvest")
    verb.add_argument("--steps", type=int, help="optimisation steps; default: each token once")
    verb.add_argument("--batch-size", type=int, default=512, help="tokens per step, over all processes")
    verb.add_argument("--seed", type=int, default=0, help="with --shipped: another than 0 goes to the cache")
    verb.add_argument("--checkpoint-every", type=int, default=500, help="steps between checkpoints")
    verb.add_argument("--out", type=Path, help="folder for layer_NN; default: build/saes/<model>")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Train dictionaries on the text mixture, alone or as one process of `accelerate launch` or `torchrun`.

    With `--shipped` those of data/saes, with the settings they ship with.
    """
    from ..models import load_model
    from ..sae import build_shipped, check_folder, join, leave

    if arguments.layers is None and not arguments.shipped:
        raise ConceptLabError("train-sae needs --layers, or --shipped for the dictionaries of data/saes.")
    cfg = None if arguments.shipped else _config(arguments)
    out = arguments.out
    if out is None and not arguments.shipped:
        out = Path("build/saes") / arguments.model.replace("/", "_")
    if out is not None:
        check_folder(out)
    world = join()
    try:
        with world.first():
            lm = load_model(arguments.model)
        if cfg is None:
            folders = build_shipped(lm, arguments.layers, out, world, seed=arguments.seed)
        else:
            folders = _train_as_asked(lm, arguments, cfg, out, world)
        for folder in folders if world.rank == 0 else ():
            say(f"{folder}: ready")
    finally:
        leave(world)


def _config(arguments: argparse.Namespace) -> TrainConfig:
    """The settings that were asked for, checked before the model is loaded and a token read."""
    from ..sae import TrainConfig, check_config

    n, size = arguments.tokens, arguments.batch_size
    if n < 1 or size < 1:
        raise ConceptLabError(f"--tokens {n} and --batch-size {size} must both be at least 1.")
    cfg = TrainConfig(
        architecture=arguments.architecture,
        d_sae=arguments.d_sae,
        k=arguments.k,
        seed=arguments.seed,
        steps=max(1, n // size) if arguments.steps is None else arguments.steps,
        batch_size=size,
        lr=arguments.lr,
        sparsity=arguments.sparsity,
        checkpoint_every=arguments.checkpoint_every,
    )
    check_config(cfg)
    return cfg


def _train_as_asked(
    lm: LanguageModel, arguments: argparse.Namespace, cfg: TrainConfig, out: Path, world: World
) -> list[Path]:
    from ..data import MIXTURE, mixture, token_rows
    from ..sae import train_dictionaries

    with world.first():
        train, held_out = mixture()
    return train_dictionaries(
        lm,
        token_rows(lm, train, n_tokens=arguments.tokens),
        arguments.layers,
        cfg,
        out,
        held_out=token_rows(lm, held_out, n_tokens=20_000),
        text=MIXTURE,
        world=world,
    )
