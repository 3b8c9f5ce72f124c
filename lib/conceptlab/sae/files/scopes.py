"""The releases of three groups: Gemma Scope 1 and 2, Llama Scope, and Llamascopium (Llama Scope's later library)."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from ...core import ConceptLabError
from .names import gemma_release, layer_in
from .settings import Settings
from .stored import Stored, as_transcoder, either, matrix_shape, only_tensors, unit_rows


# ---- Gemma Scope -----------------------------------------------------------------------------------------
def read_gemma_scope(cfg: dict, tensors: dict[str, Tensor], path: str, accept: Collection[str]) -> Stored:
    """JumpReLU that does not subtract b_dec: `params.npz` (1), `params.safetensors` with `config.json` (2).

    The files of 1 name neither model nor place; repository and folder do (`gemma_release`). A transcoder of 2 may have
    an affine skip connection.
    """
    settings = Settings(cfg, path, accept)
    names = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
    skip = tensors.get("affine_skip_connection")
    only_tensors(tensors, {*names, *(n.lower() for n in names), "affine_skip_connection"}, path)
    found = {name: either(tensors, name, name.lower()) for name in names}
    d_in, d_sae = matrix_shape(found["W_enc"], "W_enc")
    settings.only("architecture", ("jump_relu", "jumprelu"), "only JumpReLU is known of this release")
    kind = settings.only("type", ("sae", "transcoder"), "crosscoders and cross-layer transcoders are not supported")
    if bool(settings.get("affine_connection", False)) != (skip is not None) and cfg:
        raise ConceptLabError(f"{path}: affine_connection in config.json and the tensors disagree; fetch both again.")
    if settings.get("width", d_sae) != d_sae:
        raise KeyError("W_enc")
    model, hook, out = gemma_release(path)
    layer = layer_in(path)
    hook, out = (f"blocks.{layer}.{x}" if x and layer is not None else "" for x in (hook, out))
    hook, out = settings.get("hf_hook_point_in", hook), settings.get("hf_hook_point_out", out)
    out = "" if out == hook else out
    model = settings.get("model_name", model).replace("gemma-v", "gemma-")
    settings.finish({"l0"})
    common = dict(d_in=d_in, d_sae=d_sae, centred=False, model_name=model, hook_name=hook, hook_layer=layer)
    if kind == "transcoder" or (kind is None and out):
        extra = {} if skip is None else {"W_skip": _skip(skip, found["b_dec"], d_in)}
        return as_transcoder(path, Stored("jumprelu", found | extra, hook_name_out=out or "?", **common))
    if skip is not None:
        raise ConceptLabError(f"{path} has an affine skip connection but is no transcoder; fetch it again.")
    return Stored("jumprelu", found, **common)


def _skip(skip: Tensor, b_dec: Tensor, d_in: int) -> Tensor:
    if tuple(skip.shape) != (len(b_dec), d_in):
        raise KeyError("affine_skip_connection")
    return skip


# ---- Llama Scope -----------------------------------------------------------------------------------------
_TRAINING = frozenset(
    """
    activation_fn bias_init_method clip_grad_norm d_sae ddp_size decoder_exactly_fixed_norm device
    dtype expansion_factor force_unit_decoder_norm init_decoder_norm init_encoder_norm
    init_encoder_with_decoder_transpose jumprelu_threshold_window k_warmup_steps l1_coefficient
    l1_coefficient_warmup_steps lp sae_pretrained_name_or_path seed sparsity_threshold_for_triton_spmm_kernel
    strict_loading top_k tp_size use_batch_norm_mse use_ghost_grads use_triton_kernel
    """.split()
)


def read_llama_scope(cfg: dict, tensors: dict[str, Tensor], path: str, accept: Collection[str]) -> Stored:
    """`hyperparams.json` and `checkpoints/final.safetensors`: trained on `x * sqrt(d) / mean |x|`.

    The threshold holds for scores `x W_enc + b_enc / scale` of raw x.
    """
    settings = Settings(cfg, path, accept)
    d_in, d_sae = settings.size("d_model"), settings.size("d_sae")
    scale_in, scale_out = _scales(settings, settings.get("dataset_average_activation_norm") or {}, d_in)
    only_tensors(tensors, {"encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"}, path)
    found = {
        "W_enc": tensors["encoder.weight"].float().T,
        "b_enc": tensors["encoder.bias"].float() / scale_in,
        "W_dec": tensors["decoder.weight"].float().T * (scale_in / scale_out),
        "b_dec": either(tensors, "decoder.bias", default=torch.zeros(d_in)).float() / scale_out,
    }
    if settings.get("sparsity_include_decoder_norm", True):
        found = unit_rows(found)
    threshold = float(settings.get("jump_relu_threshold", 0.0))
    named = "meta-llama/Llama-3.1-8B" if "Llama3_1-8B" in path else ""
    return _finish(settings, found, torch.full((d_sae,), threshold), d_in, d_sae, scale_in, named)


def read_llamascopium(cfg: dict, tensors: dict[str, Tensor], path: str, accept: Collection[str]) -> Stored:
    """`config.json` and `sae_weights.safetensors`, in both generations of tensor names.

    With input `s x` and output divided by `s'` the score of a feature is `s (x W_E + b_E / s)`, compared with the
    threshold after multiplication by |W_D| where `sparsity_include_decoder_norm` says so.
    """
    settings = Settings(cfg, path, accept)
    settings.only("sae_type", ("sae",), "only plain dictionaries and per-layer transcoders are supported")
    d_in = settings.size("d_model")
    d_sae = round(d_in * float(settings.get("expansion_factor", 0))) or settings.size("d_sae")
    prefix = "dataset_average_activation_norm."
    norms = {name.removeprefix(prefix): float(t) for name, t in tensors.items() if name.startswith(prefix)}
    scale_in, scale_out = _scales(settings, settings.get(prefix[:-1]) or norms, d_in)
    tensors = {name: t.float() for name, t in tensors.items() if not name.startswith(prefix)}
    logs = ("activation_function.log_jumprelu_threshold", "log_jumprelu_threshold")
    weights = {"W_E", "b_E", "W_D", "b_D", "encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"}
    only_tensors(tensors, weights | {*logs}, path)
    transposed = "W_E" not in tensors
    found = {
        "W_enc": tensors["encoder.weight"].T if transposed else tensors["W_E"],
        "b_enc": either(tensors, "b_E", "encoder.bias") / scale_in,
        "W_dec": (tensors["decoder.weight"].T if transposed else either(tensors, "W_D")) * (scale_in / scale_out),
        "b_dec": either(tensors, "b_D", "decoder.bias", default=torch.zeros(d_in)) / scale_out,
    }
    with_norms = settings.get("sparsity_include_decoder_norm", True)
    if with_norms:
        found = unit_rows(found)
    threshold = either(tensors, *logs, default=torch.full((d_sae,), -torch.inf)).exp()
    if settings.get("act_fn", "relu") == "jumprelu" and not set(logs) & set(tensors):
        raise KeyError(logs[1])
    threshold = threshold / (scale_out if with_norms else scale_in)
    return _finish(settings, found, threshold, d_in, d_sae, scale_in, "")


def _scales(settings: Settings, norms: dict, d_in: int) -> tuple[float, float]:
    """What inputs were multiplied by and outputs divided by in training: `sqrt(d) / mean norm`, or 1."""
    way = settings.only(
        "norm_activation", ("dataset-wise", "inference", "none"),
        "every token or batch is normalised by its own size, which no weights can hold; use another dictionary",
        default="inference",
    )  # fmt: skip
    if way != "dataset-wise":
        return 1.0, 1.0
    hooks = settings.get("hook_point_in"), settings.get("hook_point_out")
    found = [norms.get(short, norms.get(hook)) for short, hook in zip(("in", "out"), hooks, strict=True)]
    if not all(isinstance(x, int | float) and 0 < x < float("inf") for x in found):
        raise ConceptLabError(
            f"{settings.path} was trained on scaled activations, and its files do not say by how much; save it again "
            "with fold_activation_scale=True."
        )
    return d_in**0.5 / found[0], d_in**0.5 / found[1]


def _finish(
    settings: Settings, found: dict[str, Tensor], threshold: Tensor, d_in: int, d_sae: int, scale_in: float, named: str
) -> Stored:
    """What both generations have in common: places, centring, activation, and that every setting is known."""
    path = settings.path
    settings.dtype()
    settings.only("use_glu_encoder", (False,), "gated linear encoders are not supported, use a dictionary without")
    settings.only("use_decoder_bias", (True, False), "it is true or false")
    centred = bool(settings.get("apply_decoder_bias_to_pre_encoder", False))
    if centred and scale_in != 1.0:
        raise ConceptLabError(f"{path} subtracts its decoder bias from scaled inputs, which is not supported.")
    hook, out = settings.get("hook_point_in"), settings.get("hook_point_out")
    if hook is None:
        raise KeyError("hook_point_in")
    act = settings.only(
        "act_fn", ("relu", "jumprelu", "topk"),
        "it depends on the other tokens of a batch, convert it to jumprelu", default="jumprelu",
    )  # fmt: skip
    model, top_k = settings.get("model_name", named), settings.get("top_k", 0)
    settings.get("jump_relu_threshold")
    settings.finish(_TRAINING)
    common = dict(d_in=d_in, d_sae=d_sae, centred=centred, model_name=model, hook_name=hook)
    if act == "topk" and not bool((threshold > 0).any()):
        stored = Stored("topk", found, k=int(top_k), **common)
    elif act == "relu":
        stored = Stored("relu", found, **common)
    else:
        stored = Stored("jumprelu", found | {"threshold": threshold}, **common)
    if out not in (None, hook):
        return as_transcoder(path, Stored(**{**vars(stored), "hook_name_out": out}))
    return stored
