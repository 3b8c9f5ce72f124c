"""Edits on disk: one safetensors file, the model's name and fingerprint and the provenance in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..core import ConceptLabError, atomic_path, check_output
from .kinds import Dense, Kind, LowRank, Rows


def write_edit(path: str | Path, model: str, changes: Mapping[str, Kind], info: dict, fingerprint: str | None) -> None:
    """Write the parts of a WeightEdit (atomic). Raises ConceptLabError where `path` is no place for a file."""
    path = check_output(path)
    meta = {"model": model, "info": as_json(info)} | ({} if fingerprint is None else {"fingerprint": fingerprint})
    tensors: dict[str, Tensor] = {}
    for name, change in changes.items():
        for part, tensor in vars(change).items():
            tensors[f"{name}|{part}"] = tensor.detach().cpu().contiguous()
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=meta)


def read_edit(path: str | Path) -> tuple[str, dict[str, Kind], dict, str | None]:
    """Model, changes, info and fingerprint (None in files from before there were any) of a saved WeightEdit."""
    path = Path(path)
    if not path.exists():
        raise ConceptLabError(f"There is no file {path}; give the path that WeightEdit.save wrote.")
    if not path.is_file():
        raise ConceptLabError(f"{path} is no regular file; give the path that WeightEdit.save wrote.")
    try:
        with safe_open(str(path), "pt") as file:
            meta, tensors = file.metadata() or {}, {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        parts: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            name, part = key.split("|")
            parts.setdefault(name, {})[part] = tensor
        kinds = {frozenset(kind.__dataclass_fields__): kind for kind in (LowRank, Dense, Rows)}
        changes = {name: kinds[frozenset(part)](**part) for name, part in parts.items()}
        return meta["model"], changes, json.loads(meta["info"]), meta.get("fingerprint")
    except ConceptLabError as error:
        raise ConceptLabError(f"{path}: {error}") from None
    except Exception as error:
        raise ConceptLabError(f"{path} is not a saved WeightEdit ({type(error).__name__}); save it again.") from None


def check_export(folder: str | Path) -> Path:
    """The folder, where an edited model can be written there: it is new, or holds an exported edit."""
    folder = check_output(folder, folder=True)
    if folder.exists() and not (folder / "edit.json").is_file():
        raise ConceptLabError(f"{folder} is there already and no exported edit; give the name of a new folder.")
    return folder


def as_json(info: dict, indent: int | None = None) -> str:
    """An edit's provenance as text. Raises ConceptLabError for what JSON does not know."""
    try:
        return json.dumps(info, indent=indent)
    except (TypeError, ValueError) as error:
        raise ConceptLabError(f"The edit's info is no JSON ({error}); keep text, numbers and lists.") from None
