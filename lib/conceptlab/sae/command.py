"""From a model's name to dictionaries in a folder: harvest, train, measure, save, on one process or several."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from ..core import ConceptLabError, atomic_path, cache_dir
from ..data import Harvest, TokenRows, harvest
from ..models import LanguageModel
from .base import SAE
from .checkpoint import check_folder, sole_writer
from .distributed import SOLO, World
from .files.io import load_sae, save_sae
from .files.storage import find_storage
from .held_out import HeldOut
from .train import History, train_sae
from .train_config import TrainConfig, check_config


def shared_harvest(
    lm: LanguageModel, rows: TokenRows, layers: Sequence[int], world: World = SOLO, progress: bool = True
) -> Harvest:
    """A harvest of which every process does its share of the rows. They need one disk in common."""
    part = (world.rank, world.size)
    data = harvest(lm, rows, layers, progress=progress and world.rank == 0, part=part)
    world.barrier()
    return data


def train_dictionaries(
    lm: LanguageModel,
    rows: TokenRows,
    layers: Sequence[int],
    cfg: TrainConfig,
    out: Path,
    *,
    held_out: TokenRows | None = None,
    text: str = "",
    storage: str | None = None,
    harvest_layers: Sequence[int] | None = None,
    loss_rows: int = 64,
    world: World = SOLO,
    progress: bool = True,
) -> list[Path]:
    """Harvest `rows` and train one dictionary for each layer into `out/layer_NN`, with a `card.json` beside it.

    Layers that are there already (with the same settings and text) are left as they are, and a run that was
    interrupted goes on from its checkpoint in the cache. `held_out`: rows on which the stored dictionary is measured,
    cross-entropy on the first `loss_rows` of them. `text`: what the rows are, for the card. `storage`: how matrices
    are stored (None: float32, which sae-lens reads). `harvest_layers`: harvest these in the same pass (None: `layers`).
    Settings, rows and `out` are checked before the first token is read. Raises ConceptLabError for those that do not
    fit, a folder that holds a dictionary of other settings, or one that another training writes into.
    """
    _check(lm, rows, layers, cfg, Path(out), held_out, storage)
    layers = [lm.check_layer(layer) for layer in layers]
    with sole_writer(Path(out) if world.rank == 0 else None):
        return _train_layers(
            lm, rows, layers, cfg, out, held_out, text, storage, harvest_layers, loss_rows, world, progress
        )


def cached_dictionaries(
    lm: LanguageModel, rows: TokenRows, layers: Sequence[int], cfg: TrainConfig, progress: bool = False
) -> dict[int, SAE]:
    """layer -> dictionary trained on `rows`, kept in the cache by weights, rows and settings; trained once."""
    about = json.dumps([lm.fingerprint(), rows.fingerprint(), asdict(cfg)], sort_keys=True)
    folder = cache_dir() / "dictionaries" / hashlib.sha256(about.encode()).hexdigest()[:24]
    paths = train_dictionaries(lm, rows, layers, cfg, folder, progress=progress)
    return {layer: load_sae(path, layer, lm=lm) for layer, path in zip(layers, paths, strict=True)}


def _check(
    lm: LanguageModel,
    rows: TokenRows,
    layers: Sequence[int],
    cfg: TrainConfig,
    out: Path,
    held_out: TokenRows | None,
    storage: str | None,
) -> None:
    """Everything that can be refused before the first token is read. Raises ConceptLabError."""
    check_config(cfg)
    packing = find_storage(storage)
    if packing and packing.group and lm.d_model % packing.group:
        raise ConceptLabError(f"Storage {storage!r} has groups of {packing.group}, which do not divide {lm.d_model}.")
    if not layers:
        raise ConceptLabError("No layers were given, so there is nothing to train; name at least one.")
    for what, found in (("rows to train on", rows), ("held-out rows", held_out)):
        if found is not None and not len(found):
            raise ConceptLabError(f"There are no {what}; give more texts or more tokens.")
    check_folder(out)


def _train_layers(
    lm: LanguageModel,
    rows: TokenRows,
    layers: list[int],
    cfg: TrainConfig,
    out: Path,
    held_out: TokenRows | None,
    text: str,
    storage: str | None,
    harvest_layers: Sequence[int] | None,
    loss_rows: int,
    world: World,
    progress: bool,
) -> list[Path]:
    folders = {layer: Path(out) / f"layer_{layer:02d}" for layer in layers}
    recipe = _recipe(lm, rows, cfg, text, storage)
    missing = [layer for layer in layers if not _is_there(folders[layer], recipe)]
    if missing:
        data = shared_harvest(lm, rows, harvest_layers or layers, world, progress)
    judge = None
    if missing and held_out is not None and world.rank == 0:
        judge = HeldOut(lm, held_out, harvest_layers or layers, loss_rows, progress)
    for layer in missing:
        checkpoint = _checkpoint(recipe, layer)
        sae, history = train_sae(data, cfg, lm, layer, progress, checkpoint, world)
        if world.rank == 0:
            facts = {
                "recipe": recipe,
                "layer": layer,
                "hook_name": sae.cfg.hook_name,
                "tokens": data.n_tokens,
                "tokens_trained_on": cfg.steps * min(cfg.batch_size, data.n_tokens),
                "processes": world.size,
                "training_minutes": round(history.minutes, 2),
            }
            _save(lm, sae, history, facts, folders[layer], judge)
            shutil.rmtree(checkpoint, ignore_errors=True)
        world.barrier()
    return list(folders.values())


def _save(lm: LanguageModel, sae: SAE, history: History, facts: dict, folder: Path, judge: HeldOut | None) -> None:
    """Dictionary and card into `folder`, both or neither; the card's measurements are of what was stored."""
    with atomic_path(folder) as temporary:
        save_sae(sae, temporary, facts["recipe"]["storage"])
        card = {**facts, "last_batch": {name: getattr(history, name)[-1] for name in ("loss", "fve", "l0", "dead")}}
        if judge is not None:
            stored = load_sae(temporary, sae.cfg.hook_layer, lm=lm)
            card |= {"held_out": judge.measure(stored), "storage_loss": judge.lost(sae, stored)}
        card["device"] = torch.cuda.get_device_name() if lm.device.type == "cuda" else platform.machine()
        card["torch"] = torch.__version__
        (temporary / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def _recipe(lm: LanguageModel, rows: TokenRows, cfg: TrainConfig, text: str, storage: str | None) -> dict:
    """All that decides what the dictionaries of a folder are, as it stands in a card."""
    settings = json.loads(json.dumps(asdict(cfg)))
    del settings["checkpoint_every"]
    if not cfg.freeze_decoder:
        del settings["freeze_decoder"]  # cards of before there was such a thing do not name it
    digest = hashlib.sha256(rows.ids.numpy().tobytes()).hexdigest()[:16]
    source = {"text": text, "rows": len(rows), "n_ctx": rows.ids.shape[1], "rows_sha256": digest}
    return {"model": lm.name, **settings, **source, "storage": storage}


def _checkpoint(recipe: dict, layer: int) -> Path:
    digest = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
    return cache_dir() / "training" / f"{recipe['model'].replace('/', '_')}-layer_{layer:02d}-{digest}"


def _is_there(folder: Path, recipe: dict) -> bool:
    """Whether `folder` holds the dictionary that is asked for. Raises ConceptLabError when it holds another one."""
    if not folder.exists():
        return False
    try:
        found = json.loads((folder / "card.json").read_text(encoding="utf-8"))["recipe"]
        found = found if isinstance(found, dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        found = {}
    for name, asked in recipe.items():
        if found.get(name) != asked:
            raise ConceptLabError(
                f"{folder} holds a dictionary with another {name} ({found.get(name)!r}, now {asked!r}); "
                "choose another --out or delete it."
            )
    return True
