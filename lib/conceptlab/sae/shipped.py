"""The dictionaries that ship in data/saes: which layers, which text, how they are built and read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..core import ConceptLabError, cache_dir, data_dir
from ..data import MIXTURE, mixture, token_rows
from ..models import LanguageModel
from .base import SAE
from .command import train_dictionaries
from .distributed import SOLO, World
from .files.io import load_sae
from .sites import model_family
from .train_config import TrainConfig

N_CTX = 128  # tokens per row of the harvest


STORAGE = "int5"  # about 3.1 MB for 4,096 features of width 576


# Layers from which the shipped ones are chosen by measurement: harvested together, in one pass.
CANDIDATES = {
    "smollm2-135m": (3, 4, 5, 6, 7, 8, 12, 18, 24, 27),
    "gemma3-270m": (3, 5, 6, 8, 9, 10, 12, 14, 15),
}


# SmolLM2: those in which turning a concept's directions round costs its answers more than it costs others, and more
# than the control does (data/results/layers_smollm2-135m.csv; layer 23 would belong to them and was not harvested), and
# one from the middle, where little changes. Gemma by the same rule (layers_gemma3-270m.csv): 3, 5, 12, 14 and 15 are
# the harvested layers with the largest effect beyond the control, 8 is the quiet one; layer 17 was not harvested.
# `make saes` builds these.
SHIPPED = {
    "smollm2-135m": (4, 5, 6, 7, 12, 24, 27),
    "gemma3-270m": (3, 5, 8, 12, 14, 15),
}


# SmolLM2 twice over the mixture. A pilot on layer 6 (0.44 M tokens, 1,500 steps) chose kind and learning rate, by
# held-out variance explained: BatchTopK 0.672; TopK 0.652, and with a rate of 1e-3 0.638. Gemma's outputs lie along few
# directions, so that random features seldom win: on layer 12 a quarter of them was dead after 1,500 steps with the
# auxiliary loss alone, 5 % after 500 steps with restarts (variance explained 0.78): restarts, and one pass.
TRAINING = {
    "smollm2-135m": TrainConfig(steps=3_200, batch_size=1_024, lr=2.5e-3, architecture="batchtopk"),
    "gemma3-270m": TrainConfig(
        steps=1_600,
        batch_size=1_024,
        lr=2.5e-3,
        architecture="batchtopk",
        resamples=True,
        resample_at=(0.2, 0.4, 0.6, 0.8),
    ),
}


def saes_folder(seed: int = 0) -> Path:
    """Where the dictionaries of a seed lie, a folder per model: 0 in data/saes, others (not tracked) in the cache."""
    return data_dir() / "saes" if seed == 0 else cache_dir() / "saes" / f"seed_{seed}"


def build_shipped(
    lm: LanguageModel,
    layers: Sequence[int] | None = None,
    root: Path | None = None,
    world: World = SOLO,
    progress: bool = True,
    seed: int = 0,
) -> list[Path]:
    """Harvest, train, measure and write `root/<model>/layer_NN` for each of `layers` (None: `SHIPPED`).

    `seed`: of the training (start and order of the tokens; the text stays the same); those that ship have 0, others go
    to `saes_folder(seed)`. Resumable as `train_dictionaries` is.
    Raises ConceptLabError for a model without chosen layers.
    """
    if lm.name not in SHIPPED:
        raise ConceptLabError(f"No dictionaries of {lm.name} ship; train some with `conceptlab train-sae --layers`.")
    train, held_out = mixture()
    return train_dictionaries(
        lm,
        token_rows(lm, train, n_ctx=N_CTX),
        SHIPPED[lm.name] if layers is None else layers,
        replace(TRAINING[lm.name], seed=seed),
        (root or saes_folder(seed)) / lm.name,
        held_out=token_rows(lm, held_out, n_ctx=N_CTX),
        text=MIXTURE,
        storage=STORAGE,
        harvest_layers=CANDIDATES[lm.name],  # one pass serves every choice of layers
        world=world,
        progress=progress,
    )


# ---- read ------------------------------------------------------------------------------------------------
def shipped_layers(model: str, root: Path | None = None) -> tuple[int, ...]:
    """Layers of `model` for which a dictionary lies in data/saes (none: an empty tuple)."""
    return tuple(sorted(int(path.name.removeprefix("layer_")) for path in _model_folder(model, root).glob("layer_??")))


def load_shipped(lm: LanguageModel, layer: int, root: Path | None = None) -> SAE:
    """The shipped dictionary of a layer, on the model's device. Raises ConceptLabError when there is none."""
    layer = lm.check_layer(layer)
    return load_sae(_layer_folder(lm.name, layer, root), layer, lm=lm)


def load_card(model: str, layer: int, root: Path | None = None) -> dict:
    """What was measured of a shipped dictionary, and how it was trained (`card.json`)."""
    path = _layer_folder(model, layer, root) / "card.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConceptLabError(
            f"{path} cannot be read ({type(error).__name__}); restore it, or delete its folder and run `make saes`."
        ) from None


def _model_folder(model: str, root: Path | None) -> Path:
    """data/saes/<model>; a tuned variant or another spelling of the model finds the same folder."""
    root = root or data_dir() / "saes"
    same = [path for path in sorted(root.glob("*")) if model_family(path.name) == model_family(model)]
    return same[0] if same else root / model.replace("/", "_")


def _layer_folder(model: str, layer: int, root: Path | None) -> Path:
    folder = _model_folder(model, root) / f"layer_{layer:02d}"
    if not folder.is_dir():
        there = ", ".join(map(str, shipped_layers(model, root)))
        raise ConceptLabError(
            f"No dictionary of {model}, layer {layer}, is shipped; "
            + (f"there are layers {there}." if there else "train one with `train-sae --out data/saes/<model>`.")
        )
    return folder
