"""From a model's name to dictionaries in a folder: harvest, train, save, on one process or several."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ..activations import Harvest, harvest
from ..cache import ConceptLabError, atomic_path
from ..models import LanguageModel
from ..text import TokenRows
from .distributed import SOLO, World
from .io import save_sae
from .train import TrainConfig, train_sae


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
    text: str = "",
    world: World = SOLO,
    progress: bool = True,
) -> list[Path]:
    """Harvest `rows` and train one dictionary for each layer into `out/layer_NN`, with a `card.json` beside it.

    Layers that are there already (with the same settings) are left as they are, and a run that was interrupted goes
    on from its checkpoint. `text`: what the rows are, for the card. Raises ConceptLabError when a folder holds a
    dictionary of other settings.
    """
    layers = [lm.check_layer(layer) for layer in layers]
    folders = {layer: Path(out) / f"layer_{layer:02d}" for layer in layers}
    asked = {"model": lm.name, "tokens_asked": rows.n_tokens, "text": text, **json.loads(json.dumps(asdict(cfg)))}
    missing = [layer for layer in layers if not _is_there(folders[layer], asked)]
    if missing:
        data = shared_harvest(lm, rows, layers, world, progress)
    for layer in missing:
        folder, start = folders[layer], time.monotonic()
        checkpoint = folder.with_name(f"{folder.name}.checkpoint")
        sae, history = train_sae(data, cfg, lm, layer, progress, checkpoint, world)
        card = {
            **asked,
            "layer": layer,
            "tokens_harvested": data.n_tokens,
            "tokens_trained_on": cfg.steps * min(cfg.batch_size, data.n_tokens),
            "processes": world.size,
            "minutes": round((time.monotonic() - start) / 60, 2),
            "last_batch": {name: getattr(history, name)[-1] for name in ("loss", "fve", "l0", "dead")},
        }
        if world.rank == 0:
            with atomic_path(folder) as temporary:
                save_sae(sae, temporary)
                (temporary / "card.json").write_text(json.dumps(card, indent=1) + "\n")
            _remove(checkpoint)
        world.barrier()
    return list(folders.values())


def _is_there(folder: Path, asked: dict) -> bool:
    """Whether `folder` holds the dictionary that is asked for. Raises ConceptLabError when it holds another one."""
    if not folder.exists():
        return False
    try:
        card = json.loads((folder / "card.json").read_text())
    except (OSError, ValueError):
        card = {}
    other = [name for name, value in asked.items() if card.get(name) != value and name != "checkpoint_every"]
    if other:
        raise ConceptLabError(
            f"{folder} holds a dictionary with another {other[0]} ({card.get(other[0])!r}, now {asked[other[0]]!r}); "
            "choose another --out or delete it."
        )
    return True


def _remove(checkpoint: Path) -> None:
    for path in checkpoint.glob("*"):
        path.unlink()
    checkpoint.rmdir()
