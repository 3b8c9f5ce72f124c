"""Read and write dictionaries: from a folder or the Hub, in any layout of `formats`; written in SAELens' layout."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ...core import ConceptLabError, atomic_path
from ...models import LanguageModel
from ..architectures import ARCHITECTURES
from ..base import SAE, SAEConfig
from ..gated import GatedSAE
from ..sites import check_fits
from ..transcoder import NAME as TRANSCODER
from ..transcoder import Transcoder, TranscoderConfig
from .formats import NEEDS, read_stored, side_files, split_main
from .names import hook_in_ours, layer_in, layer_of
from .saelens import TO_SAELENS
from .storage import Storage, find_storage, pack_matrices
from .stored import Stored

# The version whose keys cfg.json follows; sae-lens takes a file without one for an older layout.
_LAYOUT_VERSION = "6.0.0"


# ---- write -----------------------------------------------------------------------------------------------
def save_sae(sae: SAE, folder: Path, storage: str | Storage | None = None) -> None:
    """Write `cfg.json` and `sae_weights.safetensors` into `folder` (made if absent), each at once or not at all.

    With `storage` None the files are SAELens' own and sae-lens reads them: ReLU as `standard`, BatchTopK as `jumprelu`
    with its threshold, as sae-lens saves it. Other storages ("int8", "int5", or a `Storage`) are read by `load_sae`
    alone. Raises ConceptLabError for an unknown storage or a full disk.
    """
    folder, packing = Path(folder), find_storage(storage)
    kind = "jumprelu" if sae.cfg.architecture == "batchtopk" else sae.cfg.architecture
    if kind == TRANSCODER:
        raise ConceptLabError("Transcoders are read, not written; keep the files that this one was read from.")
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
        temporary.write_text(json.dumps(cfg, indent=1) + "\n", encoding="utf-8")


def _to_write(sae: SAE) -> dict[str, Tensor]:
    tensors = {name: t.detach().float().cpu().contiguous() for name, t in sae.named_parameters()}
    threshold = getattr(sae, "threshold", None)
    if isinstance(threshold, Tensor):
        tensors.pop("log_threshold", None)
        tensors["threshold"] = threshold.detach().float().cpu().expand(sae.cfg.d_sae).contiguous()
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
    accept: Collection[str] = (),
) -> SAE:
    """A dictionary from a folder or from a Hub repository "owner/name", frozen, float32, for raw activations.

    Where there are several, `layer` and `name` (a part of the folder's path) choose. `lm`: check that it fits this
    model and put it on its device; what a hook means there is then settled (`hook_mlp_out` is `mlp.hook_out` in a
    model without a norm after the MLP). `model_name`, `hook_name` (TransformerLens' name of the place it reads): for
    files that do not say. `accept`: keys of the configuration that you know to be of no consequence; unknown ones are
    refused. Decoder rows get norm 1 where that leaves the function as it is (all but TopK and BatchTopK). What reads
    one place and writes another is a `Transcoder`. Layouts: see `formats`.

    Raises ConceptLabError when nothing or too much is found, a file cannot be read, a shape is wrong, a setting is not
    known, or layer or model are not the ones asked for.
    """
    folder, main, path = _locate(source, layer, name)
    stored = read_stored(folder, main, path, accept)
    if layer is not None and stored.hook_layer not in (None, layer):
        raise ConceptLabError(f"{path} is of layer {stored.hook_layer}, not of layer {layer}.")
    hook = hook_in_ours(hook_name) if hook_name else stored.hook_name
    sae = build(stored, path, layer, model_name or stored.model_name, hook)
    if lm is not None:
        _settle(sae, lm)
        check_fits(lm, sae)
        sae = sae.to(lm.device)
    return sae


def _settle(sae: SAE, lm: LanguageModel) -> None:
    """Say with the model at hand what a hook means: is there a norm after the MLP, after attention, before the MLP?"""
    cfg, layer = sae.cfg, lm.check_layer(sae.cfg.hook_layer)
    if isinstance(sae, Transcoder) and cfg.hook_name.endswith(".ln2.hook_normalized"):
        sae.read_before_gain(lm)
        cfg = replace(cfg, hook_name=f"blocks.{layer}.mlp.hook_in")
    if cfg.hook_name.endswith(".attn.hook_out") and lm.post_attn_norm(layer) is None:
        cfg = replace(cfg, hook_name=f"blocks.{layer}.hook_attn_out")
    if lm.post_mlp_norm(layer) is None:  # else it would be taken as behind a norm
        if _behind(cfg.hook_name):
            cfg = replace(cfg, hook_name=lm.mlp_output(layer))
        if isinstance(cfg, TranscoderConfig) and _behind(cfg.hook_name_out):
            cfg = replace(cfg, hook_name_out=lm.mlp_output(layer))
    sae.cfg = cfg


def _behind(hook: str) -> bool:
    return hook.endswith(".hook_mlp_out")


def build(stored: Stored, path: str, layer: int | None, model_name: str, hook_name: str) -> SAE:
    """The module of what a file describes, frozen. Raises ConceptLabError where something is missing or wrong."""
    for value, what, argument in (
        (model_name, "of which model it is", "model_name='smollm2-135m'"),
        (hook_name, "which place of the model it reads", "hook_name='blocks.6.mlp.hook_out'"),
    ):
        if not value:
            raise ConceptLabError(f"{path} does not say {what}; pass it, for example {argument}.")
    number = next((x for x in (layer_of(hook_name), stored.hook_layer, layer) if x is not None), None)
    if number is None:
        raise ConceptLabError(f"{path} does not say which layer it reads; pass layer=.")
    if stored.architecture in ("topk", "batchtopk") and not 1 <= stored.k <= stored.d_sae:
        raise ConceptLabError(f"{path}: k is {stored.k}, but there are {stored.d_sae} features.")
    sae = _empty(
        stored, SAEConfig(stored.architecture, stored.d_in, stored.d_sae, stored.k, model_name, number, hook_name)
    )
    tensors = dict(stored.tensors)
    state = sae.state_dict()
    if "log_threshold" in state and "threshold" in tensors:  # a threshold of 0 or less is a ReLU: the smallest number
        tensors["log_threshold"] = tensors.pop("threshold").clamp_min(1e-30).log()
    wrong = [n for n, p in state.items() if n not in tensors or tensors[n].shape != p.shape]
    if wrong:
        shown = wrong[0].removeprefix("log_")
        raise ConceptLabError(f"{path}: {shown} is missing or not of the shape that its configuration states.")
    sae.load_state_dict({n: tensors[n] for n in state}, assign=True)
    if not stored.centred and stored.architecture != TRANSCODER:
        _centre(sae)
    sae.fold_norms()
    return sae.requires_grad_(False)


def _empty(stored: Stored, cfg: SAEConfig) -> SAE:
    """The module without numbers: shapes only."""
    with torch.device("meta"):
        if stored.architecture != TRANSCODER:
            return ARCHITECTURES[cfg.architecture](cfg)
        d_out, skip = stored.tensors["W_dec"].shape[-1], "W_skip" in stored.tensors
        return Transcoder(TranscoderConfig(**vars(cfg), d_out=d_out, hook_name_out=stored.hook_name_out, skip=skip))


@torch.no_grad()
def _centre(sae: SAE) -> None:
    """From an `encode` that reads x to ours, which reads `x - b_dec`: the biases gain `b_dec @ W_enc`."""
    shift = sae.b_dec @ sae.W_enc
    for name in ("b_enc", "b_gate"):
        if name in sae.feature_vectors:
            getattr(sae, name).add_(shift)
    if isinstance(sae, GatedSAE):
        sae.b_mag.add_(shift * sae.r_mag.exp())


def _locate(source: str | Path, layer: int | None, name: str | None) -> tuple[Path, str, str]:
    """The folder that holds the files (fetched where it must be), the main file in it, and its path for messages."""
    root = Path(source).expanduser()
    if not str(source).strip():  # the empty path is the current folder
        raise ConceptLabError(f"{str(source)!r} names no dictionary; give a folder or a Hub id such as 'owner/name'.")
    if root.is_file() and (found := split_main(root.as_posix())):
        return root.parents[found[1].count("/")], found[1], str(root)
    if root.is_dir():
        files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        own = [file for file in files if (split := split_main(file)) and not split[0]]
        chosen = own[0] if name is None and len(own) == 1 else _choose(files, layer, name, str(source))
        folder, main = _split(chosen)
        return root / folder, main, _shown(root / folder, main)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise ConceptLabError(f"{source} holds no dictionary that can be read; {NEEDS}.")
    return _fetch(str(source), layer, name)


def _split(file: str) -> tuple[str, str]:
    """`split_main` of a main file."""
    found = split_main(file)
    assert found is not None
    return found


def _shown(folder: Path | str, main: str) -> str:
    """A dictionary's place for messages and names: its folder, or its file where a folder holds one for each layer."""
    return f"{folder}/{main}" if main.startswith("layer_") else str(folder)


def _choose(files: Iterable[str], layer: int | None, name: str | None, source: str) -> str:
    """The one main file among `files` that is asked for."""
    found = {_shown(*split).strip("/") or ".": file for file in sorted(files) if (split := split_main(file))}
    if not found:
        raise ConceptLabError(
            f"{source} holds no dictionary that can be read; see conceptlab.sae.files.formats for layouts, and "
            "`conceptlab convert` for ae.pt."
        )
    some = [f for f in found if name is None or name == f or name in f]
    some = [f for f in some if f == name] or some  # the exact folder wins over longer names
    if layer is not None and len(some) > 1:
        some = [f for f in some if layer_in(f, loosely=True) == layer]
    if len(some) == 1:
        return found[some[0]]
    asked = " and ".join(
        x for x in (f"layer {layer}" * (layer is not None), f"name {name!r}" * (name is not None)) if x
    )
    listed = some or list(found)
    shown = ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")
    raise ConceptLabError(
        f"{source} holds {len(some) or 'no'} dictionaries" + (f" for {asked}" if asked else "")
        + f" ({'there are ' if not some else ''}{shown}); choose one with layer= and name=."
    )  # fmt: skip


def _fetch(repository: str, layer: int | None, name: str | None) -> tuple[Path, str, str]:
    """Download one dictionary's files from the Hub into its own cache."""
    try:
        from huggingface_hub import hf_hub_download, list_repo_files

        files = list_repo_files(repository)
        folder, main = _split(_choose(files, layer, name, repository))
        prefix = f"{folder}/" if folder else ""
        path = Path(hf_hub_download(repository, prefix + main))
        above = "/".join([*folder.split("/")[:-1], ""]).lstrip("/")
        for side in side_files(main):
            file = above + side[3:] if side.startswith("../") else prefix + side
            if file in files:
                hf_hub_download(repository, file)
    except ConceptLabError:
        raise
    except Exception as error:  # the Hub's client raises a dozen types
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConceptLabError(
            f"{repository} is no folder here and could not be fetched from the Hub ({reason[0][:120].rstrip('. ')}); "
            "check the name, the connection and that you accepted its terms, or give a folder."
        ) from None
    return path.parents[main.count("/")], main, _shown(f"{repository}/{folder}".rstrip("/"), main)
