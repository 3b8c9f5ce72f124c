"""The state of a training run on disk: weights, buffers and Adam's moments in safetensors, the rest in JSON."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..core import ConceptLabError, atomic_path, cache_dir
from .base import SAE


def check_folder(folder: Path) -> None:
    """Raise ConceptLabError unless a folder can be written or made: before the work, not after it."""
    folder = Path(folder).expanduser().absolute()
    above = next(path for path in (folder, *folder.parents) if path.exists())
    if not above.is_dir():
        raise ConceptLabError(f"{above} is a file, so no folder can be made there; choose another folder.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ConceptLabError(f"{above} cannot be written; choose another folder or change its permissions.")


@contextmanager
def sole_writer(folder: Path | None) -> Iterator[None]:
    """Inside the block no other process of this user trains into `folder` (None: nothing to guard).

    The lock stands in the cache, so that nothing is left beside the dictionaries, and is gone with the process.
    Raises ConceptLabError where another one holds it.
    """
    if folder is None:
        yield
        return
    name = hashlib.sha256(os.fsencode(Path(folder).expanduser().resolve())).hexdigest()[:24]
    (cache_dir() / "locks").mkdir(exist_ok=True)
    lock = FileLock(cache_dir() / "locks" / f"{name}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ConceptLabError(
            f"Another training writes into {folder}; wait until it is done, or choose another folder."
        ) from None
    try:
        yield
    finally:
        lock.release()


def save_checkpoint(folder: Path, sae: SAE, optimiser: torch.optim.Adam, idle: Tensor, facts: dict) -> None:
    """Write a run's state into `folder` in one move: an interrupt leaves the state before it."""
    tensors = {f"sae.{name}": x for name, x in sae.state_dict().items()} | {"idle": idle}
    for name, p in sae.named_parameters():
        tensors |= {f"adam.{name}.{part}": x for part, x in optimiser.state[p].items()}
    with atomic_path(Path(folder)) as temporary:
        temporary.mkdir()
        save_file({k: x.detach().cpu().clone(memory_format=torch.contiguous_format) for k, x in tensors.items()},
                  temporary / "state.safetensors")  # fmt: skip
        (temporary / "state.json").write_text(json.dumps(facts), encoding="utf-8")


def load_checkpoint(folder: Path, sae: SAE, optimiser: torch.optim.Adam, idle: Tensor, identity: dict) -> dict | None:
    """Put a saved state into `sae`, `optimiser` and `idle`; returns its facts, None where `folder` holds none.

    Raises ConceptLabError when it is damaged or of a run with other settings or data than `identity` says.
    """
    folder = Path(folder)
    if not folder.exists():
        return None
    try:
        facts = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "state.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise ConceptLabError(f"The checkpoint {folder} cannot be read ({type(error).__name__}); delete it.") from None
    other = [name for name, value in identity.items() if facts["run"].get(name) != value]
    if other:
        article = "other" if other[0] == "data" else "another"
        raise ConceptLabError(
            f"The checkpoint {folder} belongs to a run with {article} {other[0]} ({facts['run'].get(other[0])!r}, "
            f"now {identity[other[0]]!r}); delete it or choose another folder."
        )
    sae.load_state_dict({name[4:]: x for name, x in tensors.items() if name.startswith("sae.")})
    idle.copy_(tensors["idle"])
    for name, p in sae.named_parameters():
        prefix = f"adam.{name}."
        state = {k[len(prefix) :]: x.to(p.device) for k, x in tensors.items() if k.startswith(prefix)}
        # the fused Adam wants moments laid out as the weights are: W_enc is the transpose of a matrix
        optimiser.state[p] = {k: torch.empty_like(p).copy_(x) if x.shape == p.shape else x for k, x in state.items()}
    return facts
