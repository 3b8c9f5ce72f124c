"""The layouts in which others publish dictionaries, read into one form.

| layout | files in a folder |
|---|---|
| SAELens, also transcoders | `cfg.json`, `sae_weights.safetensors` |
| Llamascopium | `config.json`, `sae_weights.safetensors` |
| sparsify | `cfg.json`, `sae.safetensors` |
| Gemma Scope, also transcoders | `params.npz` |
| Gemma Scope 2, also transcoders | `params.safetensors`, mostly `config.json` |
| Llama Scope | `hyperparams.json`, `checkpoints/final.safetensors` |
| circuit-tracer (transcoders) | `layer_N.safetensors`, `config.yaml` for all |

dictionary_learning's `ae.pt` is read by `conceptlab convert`. Each reader returns a `Stored`: our tensor names,
float32, for raw activations (input scaling folded in). What a configuration says decides, and every setting of it is
known or refused; the path decides only what the files of a release leave to it.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from ...core import ConceptLabError
from . import others, saelens, scopes
from .names import hook_in_ours, layer_in, layer_of
from .stored import Stored
from .tensors import check_finite, read_mapping, read_tensors

Reader = Callable[[dict, dict[str, Tensor], str, Collection[str]], Stored]


@dataclass(frozen=True)
class Layout:
    """Which files a layout has, and who reads them."""

    name: str
    main: str  # pattern of the file with the weights, from the folder
    reader: Reader
    side: str = ""  # the configuration beside it
    optional: bool = False  # whether it can do without
    parent: str = ""  # a configuration in the folder above, for all layers


LAYOUTS = (  # of two with the same main file the one whose configuration is there
    Layout("saelens", r"sae_weights\.safetensors", saelens.read, "cfg.json"),
    Layout("llamascopium", r"sae_weights\.safetensors", scopes.read_llamascopium, "config.json"),
    Layout("sparsify", r"sae\.safetensors", others.read_sparsify, "cfg.json", parent="config.json"),
    Layout("gemma_scope", r"params\.npz", scopes.read_gemma_scope, optional=True),
    Layout("gemma_scope_2", r"params\.safetensors", scopes.read_gemma_scope, "config.json", optional=True),
    Layout("llama_scope", r"checkpoints/final\.safetensors", scopes.read_llama_scope, "hyperparams.json"),
    Layout("circuit_tracer", r"layer_\d+\.safetensors", others.read_circuit_tracer, "config.yaml", optional=True),
)


NEEDS = "it needs cfg.json and sae_weights.safetensors (SAELens), or one of the layouts in conceptlab.sae.files.formats"


def split_main(file: str) -> tuple[str, str] | None:
    """The folder and the main file of a dictionary, where a file's path is that of a main file."""
    for layout in LAYOUTS:
        if match := re.fullmatch(rf"(?:(.*)/)?({layout.main})", file):
            return match[1] or "", match[2]
    return None


def side_files(main: str) -> set[str]:
    """The configurations that may stand beside a main file; `../` is the folder above."""
    fitting = [layout for layout in LAYOUTS if re.fullmatch(layout.main, main)]
    return {x.side for x in fitting if x.side} | {f"../{x.parent}" for x in fitting if x.parent}


def read_stored(folder: Path, main: str, path: str, accept: Collection[str] = ()) -> Stored:
    """Read the dictionary whose weights are in `folder / main`. `path`: where it stands, for names and messages.

    `accept`: settings that the caller knows to be of no consequence. Raises ConceptLabError when a file is missing,
    cut short or not of that layout, or a setting is not known.
    """
    fitting = [layout for layout in LAYOUTS if re.fullmatch(layout.main, main)]
    layout = next((x for x in fitting if x.side and (folder / x.side).is_file()), fitting[0])
    try:
        cfg = read_mapping(folder / layout.side) if layout.side and (folder / layout.side).is_file() else {}
        if layout.side and not layout.optional and not (folder / layout.side).is_file():
            raise FileNotFoundError(layout.side)
        if layout.parent and (folder.parent / layout.parent).is_file():  # one for all layers, names the model
            cfg = read_mapping(folder.parent / layout.parent) | cfg
        stored = layout.reader(cfg, read_tensors(folder / main), path, accept)
    except KeyError as error:
        raise ConceptLabError(
            f"{path}: {error.args[0]} is missing or not of the shape that {layout.name} uses; fetch it again."
        ) from None
    except (OSError, EOFError, TypeError, AttributeError, ValueError, SafetensorError, zipfile.BadZipFile) as error:
        raise ConceptLabError(
            f"{path} holds no dictionary that can be read ({type(error).__name__}); {NEEDS}."
        ) from None
    return _settled(stored, path)


def _settled(stored: Stored, path: str) -> Stored:
    """Hooks in our names, one layer, float32, and no number that is not finite."""
    check_finite(stored.tensors, path)
    tensors = {n: t.float().contiguous() for n, t in stored.tensors.items()}
    hook, out = hook_in_ours(stored.hook_name), hook_in_ours(stored.hook_name_out)
    found = (layer_of(hook), stored.hook_layer, layer_in(path) if not stored.hook_name else None)
    layer = next((x for x in found if x is not None), None)
    return replace(stored, tensors=tensors, hook_name=hook, hook_name_out=out, hook_layer=layer)
