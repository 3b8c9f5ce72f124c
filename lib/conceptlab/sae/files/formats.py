"""The layouts in which others publish dictionaries, read into one form.

| layout | files in a folder |
|---|---|
| SAELens | `cfg.json`, `sae_weights.safetensors` |
| sparsify | `cfg.json`, `sae.safetensors` |
| Gemma Scope | `params.npz` |
| Gemma Scope 2 | `params.safetensors`, mostly `config.json` |
| Llama Scope | `hyperparams.json`, `checkpoints/final.safetensors` |

Each reader returns a `Stored`: our tensor names, float32, for raw activations (input scaling folded in).
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...core import ConceptLabError
from .storage import Storage, unpack_matrices


@dataclass(frozen=True)
class Stored:
    """A dictionary as a file describes it."""

    architecture: str  # a name in ARCHITECTURES
    tensors: dict[str, Tensor]  # W_enc, W_dec, b_dec, and b_enc or b_gate, b_mag, r_mag; threshold
    d_in: int
    d_sae: int
    centred: bool  # whether `encode` subtracts b_dec first
    k: int = 0  # active features per token; 0 where it varies
    model_name: str = ""  # "" where the files do not say
    hook_name: str = ""  # TransformerLens' name
    hook_layer: int | None = None  # 0-based; None where neither files nor names say


MAIN_FILES = {  # the file that holds the weights, and the layout it belongs to
    "sae_weights.safetensors": "saelens",
    "sae.safetensors": "sparsify",
    "params.npz": "gemma_scope",
    "params.safetensors": "gemma_scope_2",
    "checkpoints/final.safetensors": "llama_scope",
}


SIDE_FILES = {  # what a layout needs beside it, and whether it can do without
    "saelens": ("cfg.json", False),
    "sparsify": ("cfg.json", False),
    "gemma_scope": (None, True),
    "gemma_scope_2": ("config.json", True),
    "llama_scope": ("hyperparams.json", False),
}


_NEEDS = "it needs cfg.json and sae_weights.safetensors (SAELens), or one of the layouts in conceptlab.sae.formats"


def read_stored(folder: Path, path: str = "") -> Stored:
    """Read whatever layout `folder` holds. `path`: where it stands (repository and folder), for what names say.

    Raises ConceptLabError when there is none, a file is missing, cut short or not of that layout, or the kind of
    dictionary (transcoder, cross-layer) is not one that reads and writes the same activations.
    """
    path = path or str(folder)
    found = [(main, layout) for main, layout in MAIN_FILES.items() if (folder / main).is_file()]
    if not found:
        raise ConceptLabError(f"{path} holds no dictionary that can be read; {_NEEDS}.")
    if re.search(r"transcoder|crosscoder|\bclt\b", path, re.IGNORECASE):
        raise ConceptLabError(f"{path} is a transcoder or crosscoder; Concept Lab reads autoencoders of one site.")
    main, layout = found[0]
    side = SIDE_FILES[layout][0]
    try:
        tensors = _tensors(folder / main)
        cfg = json.loads((folder / side).read_text()) if side and (folder / side).exists() else {}
        if side and not cfg and not SIDE_FILES[layout][1]:
            raise FileNotFoundError(side)
        if layout == "sparsify" and (folder.parent / "config.json").is_file():  # one for all layers, names the model
            cfg = json.loads((folder.parent / "config.json").read_text()) | cfg
        stored = READERS[layout](cfg, tensors, path)
    except KeyError as error:
        raise ConceptLabError(f"{path}: {error.args[0]} is missing or not of the shape that {layout} uses.") from None
    except (OSError, EOFError, TypeError, ValueError, SafetensorError, zipfile.BadZipFile) as error:
        raise ConceptLabError(
            f"{path} holds no dictionary that can be read ({type(error).__name__}); {_NEEDS}."
        ) from None
    match = re.match(r"blocks\.(\d+)\.", stored.hook_name)
    layer = int(match[1]) if match else stored.hook_layer if stored.hook_layer is not None else layer_in(path)
    tensors = {n: t.float().contiguous() for n, t in stored.tensors.items()}
    return replace(stored, tensors=tensors, hook_layer=layer)


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: torch.from_numpy(np.array(file[name])) for name in file.files}
    return load_file(path)


# ---- SAELens ---------------------------------------------------------------------------------------------
_FROM_SAELENS = {"standard": "relu", "gated": "gated", "topk": "topk", "jumprelu": "jumprelu"}


TO_SAELENS = {ours: theirs for theirs, ours in _FROM_SAELENS.items()}


def _saelens(cfg: dict, tensors: dict[str, Tensor], path: str) -> Stored:
    """Versions 6 (model and hook under `metadata`) and before (flat); ours may hold packed matrices."""
    told = cfg | cfg.get("metadata", {})
    kind = cfg.get("architecture", "standard")
    options = cfg.get("activation_fn_kwargs") or {}
    if (cfg.get("activation_fn") or cfg.get("activation_fn_str")) == "topk":
        kind = "topk"
    if kind not in _FROM_SAELENS:
        raise ConceptLabError(f"Unknown architecture {kind!r}; known are {', '.join(_FROM_SAELENS)}.")
    _refuse_options(cfg, tensors, path)
    if cfg.get("storage"):
        tensors = unpack_matrices(tensors, Storage(**cfg["storage"]), int(cfg["d_in"]))
    tensors = {n: t.float() for n, t in tensors.items() if n not in ("scaling_factor", "log_feature_sparsity")}
    if cfg.get("rescale_acts_by_decoder_norm"):  # scores are multiplied by |W_dec_i|, values divided by it again
        tensors = _unit_decoder(tensors)
    ours = _FROM_SAELENS[kind]
    if told.get("trained_as") == "batchtopk" and "threshold" in tensors:  # ours: one threshold for all features
        ours, tensors["threshold"] = "batchtopk", tensors["threshold"].flatten()[0]
    return Stored(
        ours,
        tensors,
        int(cfg["d_in"]),
        int(cfg["d_sae"]),
        centred=bool(cfg.get("apply_b_dec_to_input", True)),
        k=int(cfg.get("k") or options.get("k") or 0),
        model_name=told.get("model_name") or "",
        hook_name=told.get("hook_name") or told.get("hook_point") or "",
        hook_layer=told.get("hook_layer"),
    )


def _refuse_options(cfg: dict, tensors: dict[str, Tensor], path: str) -> None:
    """Options that cannot be folded into the weights: to ignore them would give wrong activations silently."""
    normalise = cfg.get("normalize_activations") or "none"
    if normalise != "none":
        raise ConceptLabError(
            f"{path} normalises its inputs ({normalise}), which is not part of its weights; "
            "fold the factor into them with sae-lens and save it again."
        )
    if (cfg.get("reshape_activations") or "none") != "none":
        raise ConceptLabError(f"{path} reads attention heads ({cfg['reshape_activations']}), which are not supported.")
    factor = tensors.get("scaling_factor")
    if factor is not None and not torch.allclose(factor.float(), torch.ones(())):
        raise ConceptLabError(f"{path} has a fine-tuned scaling factor; fold it into W_dec and save it again.")


def _unit_decoder(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same dictionary with unit decoder rows, their norms moved into the encoder."""
    norm = tensors["W_dec"].norm(dim=1).clamp_min(1e-8)
    return tensors | {
        "W_dec": tensors["W_dec"] / norm[:, None],
        "W_enc": tensors["W_enc"] * norm,
        "b_enc": tensors["b_enc"] * norm,
    }


# ---- Gemma Scope -----------------------------------------------------------------------------------------
# `hook_mlp_out` of a Gemma model stands after the norm that follows the MLP: our site `mlp_contribution`.
_GEMMA_SITES = {
    r"mlp(?:_out(?:_all)?)?": "hook_mlp_out",
    r"res(?:id_post(?:_all)?)?": "hook_resid_post",
    r"att(?:n_out(?:_all)?)?": "attn.hook_z",
}


_GEMMA_MODULES = {"post_feedforward_layernorm.output": "hook_mlp_out", "output": "hook_resid_post"}


def _gemma_scope(cfg: dict, tensors: dict[str, Tensor], path: str) -> Stored:
    """JumpReLU that does not subtract b_dec. Files name neither model nor site; repository and folder do."""
    names = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
    found = {name: _either(tensors, name, name.lower()) for name in names}
    d_in, d_sae = _matrix(found["W_enc"], "W_enc")
    layer = layer_in(path)
    site = next((hook for pattern, hook in _GEMMA_SITES.items() if re.search(rf"(?:^|[-/]){pattern}(?=/|$)", path)), "")
    site = _GEMMA_MODULES.get(re.sub(r"model\.layers\.\d+\.", "", cfg.get("hf_hook_point_in", "")), site)
    model = cfg.get("model_name", "").replace("gemma-v", "gemma-") or _gemma_model(path)
    hook_name = f"blocks.{layer}.{site}" if layer is not None and site else ""
    return Stored("jumprelu", found, d_in, d_sae, centred=False, model_name=model, hook_name=hook_name)


def _gemma_model(path: str) -> str:
    """`gemma-scope-2b-pt-mlp` is of gemma-2-2b, `gemma-scope-2-270m-pt` of gemma-3-270m."""
    if match := re.search(r"gemma-scope-2-(\d+[mb])-(pt|it)", path):
        return f"google/gemma-3-{match[1]}-{match[2]}"
    if match := re.search(r"gemma-scope-(\d+b)-(pt|it)", path):
        return f"google/gemma-2-{match[1]}" + ("-it" if match[2] == "it" else "")
    return ""


# ---- Llama Scope -----------------------------------------------------------------------------------------
def _llama_scope(cfg: dict, tensors: dict[str, Tensor], path: str) -> Stored:
    """Trained on `x * sqrt(d) / mean |x|`; the threshold holds for scores `x W_enc + b_enc / scale` of raw x."""
    d_in, d_sae = int(cfg["d_model"]), int(cfg["d_sae"])
    if cfg.get("hook_point_out", cfg["hook_point_in"]) != cfg["hook_point_in"] or cfg.get("use_glu_encoder"):
        raise ConceptLabError(f"{path} is not an autoencoder of one site; Concept Lab reads those only.")
    scale_in = scale_out = 1.0
    if cfg.get("norm_activation") == "dataset-wise":
        norms = cfg["dataset_average_activation_norm"]
        scale_in, scale_out = d_in**0.5 / norms["in"], d_in**0.5 / norms["out"]
    elif cfg.get("norm_activation", "inference") not in ("inference", "none"):
        raise ConceptLabError(f"{path} normalises every token ({cfg['norm_activation']}), which is not supported.")
    found = {
        "W_enc": tensors["encoder.weight"].float().T,
        "b_enc": tensors["encoder.bias"].float() / scale_in,
        "W_dec": tensors["decoder.weight"].float().T * (scale_in / scale_out),
        "b_dec": _either(tensors, "decoder.bias", default=torch.zeros(d_in)).float() / scale_out,
    }
    centred = bool(cfg.get("apply_decoder_bias_to_pre_encoder", False))
    if centred and scale_in != 1.0:
        raise ConceptLabError(f"{path} subtracts its decoder bias from scaled inputs, which is not supported.")
    if cfg.get("sparsity_include_decoder_norm", True):
        found = _unit_decoder(found)
    model = cfg.get("model_name") or ("meta-llama/Llama-3.1-8B" if "Llama3_1-8B" in path else "")
    common = dict(d_in=d_in, d_sae=d_sae, centred=centred, model_name=model, hook_name=cfg["hook_point_in"])
    threshold = cfg.get("jump_relu_threshold") or 0.0
    if cfg.get("act_fn", "jumprelu") == "topk" and threshold <= 0:
        return Stored("topk", found, k=int(cfg["top_k"]), **common)
    return Stored("jumprelu", found | {"threshold": torch.full((d_sae,), float(threshold))}, **common)


# ---- sparsify --------------------------------------------------------------------------------------------
_SPARSIFY_SITES = {"": "hook_resid_post", ".mlp": "mlp.hook_out", ".self_attn": "hook_attn_out"}


def _sparsify(cfg: dict, tensors: dict[str, Tensor], path: str) -> Stored:
    """TopK that subtracts b_dec; the folder is called after the module it reads, `layers.6.mlp`."""
    if cfg.get("transcode") or cfg.get("skip_connection") or cfg.get("signed"):
        raise ConceptLabError(f"{path} is a transcoder or has signed features; Concept Lab reads autoencoders only.")
    if (kind := cfg.get("activation", "topk")) != "topk":
        raise ConceptLabError(f"{path}: the activation {kind!r} of sparsify is not supported, only topk is.")
    d_in = int(cfg["d_in"])
    weight = tensors["encoder.weight"]
    match = re.search(r"layers?[._](\d+)((?:\.\w+)?)/?$", path)
    site = _SPARSIFY_SITES.get(match[2]) if match else None
    found = {
        "W_enc": weight.T,
        "b_enc": _either(tensors, "encoder.bias"),
        "W_dec": _either(tensors, "W_dec"),
        "b_dec": tensors["b_dec"],
    }
    hook_name = f"blocks.{match[1]}.{site}" if match and site else ""
    d_sae = int(cfg.get("num_latents") or d_in * int(cfg["expansion_factor"]))
    model = cfg.get("model", "")
    return Stored("topk", found, d_in, d_sae, centred=True, k=int(cfg["k"]), model_name=model, hook_name=hook_name)


READERS: dict[str, Callable[[dict, dict[str, Tensor], str], Stored]] = {
    "saelens": _saelens,
    "sparsify": _sparsify,
    "gemma_scope": _gemma_scope,
    "gemma_scope_2": _gemma_scope,
    "llama_scope": _llama_scope,
}


def _either(tensors: dict[str, Tensor], *names: str, default: Tensor | None = None) -> Tensor:
    for name in names:
        if name in tensors:
            return tensors[name]
    if default is None:
        raise KeyError(names[0])
    return default


def _matrix(tensor: Tensor, name: str) -> tuple[int, int]:
    if tensor.ndim != 2:
        raise KeyError(name)
    return tensor.shape[0], tensor.shape[1]


def layer_in(path: str) -> int | None:
    """The layer that a folder's name states."""
    for pattern in (r"layer_(\d+)", r"layers?[._](\d+)", r"blocks\.(\d+)\.", r"-L(\d+)[A-Z]"):
        if match := re.search(pattern, path):
            return int(match[1])
    return None
