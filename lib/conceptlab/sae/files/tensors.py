"""Tensors from files of others. Nothing in them is executed, and what they declare is checked before it is unpacked."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from ...core import ConceptLabError

_RATIO = 20  # how much larger than the file its numbers may be; weights hardly compress
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_TEXT = 4 << 20  # bytes of a configuration


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a `.safetensors` or `.npz` file. Raises ConceptLabError where the declared sizes do not fit."""
    return _read_npz(path) if path.suffix == ".npz" else load_file(path)


def _read_npz(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        declared = sum(info.file_size for info in archive.infolist())
        if declared > _RATIO * path.stat().st_size + 65_536:
            raise ConceptLabError(
                f"{path} is {path.stat().st_size:,} bytes and says that it unpacks to {declared:,}: that is no "
                "dictionary; fetch it again from where it was published."
            )
        for info in archive.infolist():
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                shape, _, dtype = _HEADERS[version](member)
                if dtype.hasobject or dtype.kind not in "fiu" or len(shape) > 2:
                    raise ConceptLabError(f"{path}: {info.filename} holds {dtype} of shape {shape}, not weights.")
                if math.prod(shape) * dtype.itemsize + member.tell() != info.file_size:
                    raise ConceptLabError(
                        f"{path}: {info.filename} says shape {shape} and holds {info.file_size:,} bytes."
                    )
    with np.load(path, allow_pickle=False) as file:
        return {name: torch.from_numpy(np.array(file[name])) for name in file.files}


def read_state(path: Path, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, Tensor]:
    """The tensors of a file that torch.save wrote (`ae.pt`), read with `weights_only=True` into memory of the CPU.

    `shapes`: what must be there. Raises ConceptLabError for the old format without a directory of sizes, compressed
    members, sizes that the file cannot hold, and anything but a table of tensors.
    """
    if not zipfile.is_zipfile(path):
        raise ConceptLabError(f"{path} is not a file of torch.save as it writes them since version 1.6; save it again.")
    with zipfile.ZipFile(path) as archive:
        packed = [info for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
        if packed or sum(info.file_size for info in archive.infolist()) > path.stat().st_size:
            raise ConceptLabError(f"{path} unpacks to more than it holds: that is no file of torch.save.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except ConceptLabError:
        raise
    except Exception as error:  # torch's reader raises a dozen types, UnpicklingError for code among them
        raise ConceptLabError(
            f"{path} holds something else than tensors ({type(error).__name__}), and nothing in it is executed; ask "
            "its author for safetensors."
        ) from None
    if not isinstance(found, Mapping) or not all(isinstance(t, Tensor) for t in found.values()):
        raise ConceptLabError(f"{path} is not a table of tensors; save the state_dict of the dictionary.")
    for name, t in found.items():
        if t.is_sparse or t.is_quantized or t.numel() * t.element_size() > t.untyped_storage().nbytes():
            raise ConceptLabError(f"{path}: {name} of shape {tuple(t.shape)} is not stored number by number.")
    for name, shape in (shapes or {}).items():
        if name not in found or tuple(found[name].shape) != shape:
            raise ConceptLabError(f"{path}: {name} is missing or not of shape {shape}, which its config.json states.")
    return {name: t.detach() for name, t in found.items()}


def read_mapping(path: Path) -> dict:
    """A JSON or YAML file that holds a table. Raises ValueError for anything else."""
    if path.stat().st_size > _TEXT:
        raise ConceptLabError(f"{path} has {path.stat().st_size:,} bytes: that is no configuration.")
    text = path.read_text(encoding="utf-8")
    try:
        found = json.loads(text) if path.suffix == ".json" else _yaml(text, path)
    except RecursionError:
        raise ConceptLabError(f"{path} is nested too deeply to be a configuration.") from None
    if not isinstance(found, dict):
        raise ConceptLabError(f"{path} holds a {type(found).__name__}, not a table of settings.")
    return found


def _yaml(text: str, path: Path):
    if text.count("[") + text.count("{") > 1_000:  # the parser recurses
        raise ConceptLabError(f"{path} is nested too deeply to be a configuration.")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConceptLabError(f"{path} is not YAML ({type(error).__name__}).") from None


def check_finite(tensors: Mapping[str, Tensor], path: str) -> None:
    """Raise ConceptLabError for weights that are not finite real numbers."""
    for name, t in tensors.items():
        numbers = t.nan_to_num(posinf=0.0) if name == "threshold" else t  # a feature that never fires
        if t.is_complex() or bool(t.isnan().any()) or not bool(torch.isfinite(numbers).all()):
            raise ConceptLabError(f"{path}: {name} holds NaN, infinite or complex numbers; fetch or train it again.")
