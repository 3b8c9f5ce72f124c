"""Read and write dictionaries: from a folder or the Hub, in any layout of `formats`; written in SAELens' layout."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ...core import ConceptLabError, atomic_path
from ...models import LanguageModel, Site
from ..architectures import ARCHITECTURES
from ..base import SAE, SAEConfig
from .formats import MAIN_FILES, SIDE_FILES, TO_SAELENS, Stored, layer_in, read_stored
from .storage import Storage, find_storage, pack_matrices

# The version whose keys cfg.json follows; sae-lens takes a file without one for an older layout.
_LAYOUT_VERSION = "6.0.0"


_SITES = {  # TransformerLens' hook names and ours. Where a norm follows the MLP, `hook_mlp_out` stands after it.
    "hook_resid_pre": "resid_pre",
    "hook_resid_post": "resid_post",
    "mlp.hook_post": "neurons",
    "mlp.hook_out": "mlp_output",
    "hook_mlp_out": "mlp_contribution",
    "hook_attn_out": "attn_contribution",
}


# ---- write -----------------------------------------------------------------------------------------------
def save_sae(sae: SAE, folder: Path, storage: str | Storage | None = None) -> None:
    """Write `cfg.json` and `sae_weights.safetensors` into `folder` (made if absent), each at once or not at all.

    With `storage` None the files are SAELens' own and sae-lens reads them: ReLU as `standard`, BatchTopK as `jumprelu`
    with its threshold, as sae-lens saves it. Other storages ("int8", "int5", or a `Storage`) are read by `load_sae`
    alone. Raises ConceptLabError for an unknown storage or a full disk.
    """
    folder, packing = Path(folder), find_storage(storage)
    kind = "jumprelu" if sae.cfg.architecture == "batchtopk" else sae.cfg.architecture
    cfg = {
        "architecture": TO_SAELENS[kind],
        "d_in": sae.cfg.d_in,
        "d_sae": sae.cfg.d_sae,
        "k": sae.cfg.k,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": _LAYOUT_VERSION,
            "model_name": sae.cfg.model_name,
            "hook_name": sae.cfg.hook_name,
            "hook_layer": sae.cfg.hook_layer,
            "trained_as": sae.cfg.architecture,
        },
    }
    tensors = _to_write(sae)
    if packing:
        cfg["storage"] = asdict(packing)
        tensors = pack_matrices(tensors, packing)
    with atomic_path(folder / "sae_weights.safetensors") as temporary:
        save_file(tensors, temporary)
    with atomic_path(folder / "cfg.json") as temporary:
        temporary.write_text(json.dumps(cfg, indent=1) + "\n")


def _to_write(sae: SAE) -> dict[str, Tensor]:
    tensors = {name: t.detach().float().cpu().contiguous() for name, t in sae.named_parameters()}
    if hasattr(sae, "threshold"):
        tensors.pop("log_threshold", None)
        tensors["threshold"] = sae.threshold.detach().float().cpu().expand(sae.cfg.d_sae).contiguous()
    return tensors


# ---- read ------------------------------------------------------------------------------------------------
def load_sae(
    source: str | Path,
    layer: int | None = None,
    name: str | None = None,
    *,
    lm: LanguageModel | None = None,
    model_name: str | None = None,
    hook_name: str | None = None,
) -> SAE:
    """A dictionary from a folder or from a Hub repository "owner/name", frozen, float32, for raw activations.

    Where there are several, `layer` and `name` (a part of the folder's path) choose. `lm`: check that it fits this
    model and put it on its device; where the model has no norm after the MLP, a dictionary of `hook_mlp_out` is given
    as one of `mlp.hook_out`, which is the same place there. `model_name`, `hook_name` (TransformerLens' name of the
    place it reads): for files that do not say. Layouts: see `formats`. Raises ConceptLabError when nothing or too much
    is found, a file cannot be read, a shape is wrong, or layer or model are not the ones asked for.
    """
    folder, path = _locate(source, layer, name)
    stored = read_stored(folder, path)
    if layer is not None and stored.hook_layer not in (None, layer):
        raise ConceptLabError(f"{path} is of layer {stored.hook_layer}, not of layer {layer}.")
    sae = _build(stored, path, layer, model_name or stored.model_name, hook_name or stored.hook_name)
    if lm is not None:
        check_fits(lm, sae)
        kind, at = sae_site(sae)
        if kind == "mlp_contribution" and lm.post_mlp_norm(at) is None:  # else it would be read as behind a norm
            sae.cfg = replace(sae.cfg, hook_name=lm.mlp_output(at))
        sae = sae.to(lm.device)
    return sae


def _build(stored: Stored, path: str, layer: int | None, model_name: str, hook_name: str) -> SAE:
    for value, what, argument in (
        (model_name, "of which model it is", "model_name='smollm2-135m'"),
        (hook_name, "which place of the model it reads", "hook_name='blocks.6.mlp.hook_out'"),
    ):
        if not value:
            raise ConceptLabError(f"{path} does not say {what}; pass it, for example {argument}.")
    match = re.match(r"blocks\.(\d+)\.", hook_name)
    number = int(match[1]) if match else stored.hook_layer if stored.hook_layer is not None else layer
    if number is None:
        raise ConceptLabError(f"{path} does not say which layer it reads; pass layer=.")
    cfg = SAEConfig(stored.architecture, stored.d_in, stored.d_sae, stored.k, model_name, number, hook_name)
    with torch.device("meta"):  # shapes only; the weights are put in below
        sae = ARCHITECTURES[cfg.architecture](cfg)
    if stored.architecture in ("topk", "batchtopk") and not 1 <= stored.k <= stored.d_sae:
        raise ConceptLabError(f"{path}: k is {stored.k}, but there are {stored.d_sae} features.")
    tensors = dict(stored.tensors)
    state = sae.state_dict()
    if "log_threshold" in state and "threshold" in tensors:  # a threshold of 0 or less is a ReLU: the smallest number
        tensors["log_threshold"] = tensors.pop("threshold").clamp_min(1e-30).log()
    wrong = [n for n, p in state.items() if n not in tensors or tensors[n].shape != p.shape]
    if wrong:
        shown = wrong[0].removeprefix("log_")
        raise ConceptLabError(f"{path}: {shown} is missing or not of the shape that its configuration states.")
    sae.load_state_dict({n: tensors[n] for n in state}, assign=True)
    if not stored.centred:
        _centre(sae)
    return sae.requires_grad_(False)


@torch.no_grad()
def _centre(sae: SAE) -> None:
    """From an `encode` that reads x to ours, which reads `x - b_dec`: the biases gain `b_dec @ W_enc`."""
    shift = sae.b_dec @ sae.W_enc
    for name in ("b_enc", "b_gate"):
        if name in sae.feature_vectors:
            getattr(sae, name).add_(shift)
    if "b_mag" in sae.feature_vectors:
        sae.b_mag.add_(shift * sae.r_mag.exp())


def _locate(source: str | Path, layer: int | None, name: str | None) -> tuple[Path, str]:
    """The folder that holds the files (fetched where it must be), and its path for messages and names."""
    root = Path(source).expanduser()
    if root.is_dir():
        if name is None and any((root / main).is_file() for main in MAIN_FILES):
            return root, str(root)
        files = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
        folder = _choose(files, layer, name, str(source))
        return root / folder, str(root / folder)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        read_stored(root)  # raises, and says what was needed
    return _fetch(str(source), layer, name)


def _choose(files: Iterable[str], layer: int | None, name: str | None, source: str) -> str:
    """The one folder among `files` that holds a dictionary and is asked for."""
    folders = sorted({f[: -len(e)].rstrip("/") for f in files for e in MAIN_FILES if f == e or f.endswith("/" + e)})
    if not folders:
        raise ConceptLabError(f"{source} holds no dictionary that can be read; see conceptlab.sae.formats for layouts.")
    found = [f for f in folders if name is None or name == f or name in f]
    found = [f for f in found if f == name] or found  # the exact folder wins over longer names
    if layer is not None and len(found) > 1:
        found = [f for f in found if layer_in(f) == layer]
    if len(found) == 1:
        return found[0]
    asked = " and ".join(
        x for x in (f"layer {layer}" * (layer is not None), f"name {name!r}" * (name is not None)) if x
    )
    some = found or folders
    shown = ", ".join(some[:3]) + (", ..." if len(some) > 3 else "")
    raise ConceptLabError(
        f"{source} holds {len(found) or 'no'} dictionaries" + (f" for {asked}" if asked else "")
        + f" ({'there are ' if not found else ''}{shown}); choose one with layer= and name=."
    )  # fmt: skip


def _fetch(repository: str, layer: int | None, name: str | None) -> tuple[Path, str]:
    """Download one dictionary's files from the Hub into its own cache."""
    try:
        from huggingface_hub import hf_hub_download, list_repo_files

        files = list_repo_files(repository)
        folder = _choose(files, layer, name, repository)
        prefix = f"{folder}/" if folder else ""
        main = next(m for m in MAIN_FILES if prefix + m in files)
        path = Path(hf_hub_download(repository, prefix + main))
        side = SIDE_FILES[MAIN_FILES[main]][0]
        parent = "/".join([*folder.split("/")[:-1], "config.json"]).lstrip("/")  # sparsify's, for all layers
        for other in {prefix + side if side else parent, parent} & set(files):
            hf_hub_download(repository, other)
    except ConceptLabError:
        raise
    except Exception as error:  # the Hub's client raises a dozen types
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConceptLabError(
            f"{repository} is no folder here and could not be fetched from the Hub ({reason[0][:120].rstrip('. ')}); "
            "check the name, the connection and that you accepted its terms, or give a folder."
        ) from None
    return path.parents[main.count("/")], f"{repository}/{folder}".rstrip("/")


# ---- does it fit? ----------------------------------------------------------------------------------------
def sae_site(sae: SAE) -> Site:
    """The place `(kind, layer)` whose activations a dictionary reads, for `LanguageModel.capture` and `intervene`."""
    kind = _SITES.get(sae.cfg.hook_name.split(".", 2)[-1] if sae.cfg.hook_name.startswith("blocks.") else "")
    if kind is None:
        raise ConceptLabError(f"The hook {sae.cfg.hook_name!r} is no place of a LanguageModel; see sites.SITES.")
    return kind, sae.cfg.hook_layer


def check_fits(lm: LanguageModel, sae: SAE, any_model: bool = False) -> None:
    """Raise ConceptLabError unless the dictionary is of this model (tuned variants count as the same) and width.

    `any_model`: compare layer and width alone, for a model under a name of its own.
    """
    if not any_model and model_family(sae.cfg.model_name) != model_family(lm.name):
        raise ConceptLabError(
            f"The dictionary is of {sae.cfg.model_name}, the model is {lm.name}; load the one of this model, "
            "or pass any_model=True to check_fits if it is the same under another name."
        )
    kind, layer = sae_site(sae)
    lm.check_layer(layer)
    width = lm.d_mlp if kind == "neurons" else lm.d_model
    if sae.cfg.d_in != width:
        raise ConceptLabError(
            f"The dictionary reads activations of width {sae.cfg.d_in}, but {kind} of {lm.name} has width {width}."
        )


def model_family(model_name: str) -> str:
    """A model's name without owner, punctuation and what training came after: gemma-3-270m-it is gemma3270m."""
    name = model_name.rstrip("/").rsplit("/", 1)[-1].lower()
    name = re.sub(r"^meta-", "", re.sub(r"-(it|pt|instruct|chat|base)$", "", name))
    return re.sub(r"[^a-z0-9]", "", name)
