"""SAELens' layout, `cfg.json` beside `sae_weights.safetensors`: versions 6 (facts under `metadata`) and before (flat).

Read from files of versions 3 to 6 and from the code of version 6.54. A dictionary of ours may hold packed matrices.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from ...core import ConceptLabError
from .settings import Settings
from .storage import Storage, unpack_matrices
from .stored import Stored, as_transcoder, only_tensors, unit_rows

ARCHITECTURES = {"standard": "relu", "gated": "gated", "topk": "topk", "jumprelu": "jumprelu"}


TO_SAELENS = {ours: theirs for theirs, ours in ARCHITECTURES.items()}


_UNFINISHED = ("batchtopk", "matryoshka_batchtopk")  # training checkpoints; finished ones are saved as jumprelu


_TRANSCODERS = {  # name -> (activation, whether there is a linear skip connection)
    "transcoder": ("relu", False),
    "skip_transcoder": ("relu", True),
    "jumprelu_transcoder": ("jumprelu", False),
    "jumprelu_skip_transcoder": ("jumprelu", True),
}


_TENSORS = {"W_enc", "W_dec", "b_enc", "b_dec", "threshold", "b_gate", "b_mag", "r_mag", "W_skip", "topk_threshold"}


# what training and bookkeeping leave in a configuration, without a part in the function
_HARMLESS = frozenset(
    """
    act_store_device adam_beta1 adam_beta2 autocast autocast_lm aux_loss_coefficient b_dec_init_method
    cached_activations_path checkpoint_path compile_llm compile_sae context_size d_out dataset_path
    dataset_trust_remote_code dead_feature_threshold dead_feature_window decoder_heuristic_init decoder_init_norm
    decoder_orthogonal_init device disable_concat_sequences eval_batch_size_prompts eval_every_n_wandb_logs
    exclude_special_tokens expansion_factor feature_sampling_window finetuning_method finetuning_tokens
    from_pretrained_path hook_eval hook_point_eval hook_point_layer init_encoder_as_decoder_transpose
    is_dataset_tokenized jumprelu_bandwidth jumprelu_init_threshold jumprelu_sparsity_loss_mode jumprelu_tanh_scale
    l0_coefficient l0_warm_up_steps l1_coefficient l1_warm_up_steps layer llm_compilation_mode
    log_activations_store_to_wandb log_optimizer_state_to_wandb log_to_wandb logger lp_norm lr lr_decay_steps lr_end
    lr_scheduler_name lr_warm_up_steps matryoshka_widths metadata model_class_name model_kwargs mse_loss_normalization
    n_batches_in_buffer n_checkpoints n_eval_batches n_restart_cycles neuronpedia_id noise_scale normalize_sae_decoder
    output_path pre_act_loss_coefficient prepend_bos resume run_name sae_compilation_mode sae_lens_training_version
    sae_lens_version scale_sparsity_penalty_by_decoder_norm seed seqpos seqpos_slice sequence_separator_token
    sparsity_loss_mode store_batch_size store_batch_size_prompts streaming tokens_per_buffer topk_threshold_lr
    train_batch_size train_batch_size_tokens training_tokens trained_as use_cached_activations use_ghost_grads
    use_sparse_activations verbose wandb_entity wandb_id wandb_log_frequency wandb_project
    """.split()
)


def read(cfg: dict, tensors: dict[str, Tensor], path: str, accept: Collection[str]) -> Stored:
    """A dictionary or transcoder of SAELens. Raises ConceptLabError for settings not known or not supported."""
    settings = Settings(cfg, path, accept)
    told = Settings(cfg | (cfg.get("metadata") or {}), path)
    for key in ("model_name", "hook_name", "hook_point", "hook_name_out"):
        if not isinstance(named := told.get(key), str | None):
            raise ConceptLabError(f"{path}: {key} is {named!r}, which is no name; mend its cfg.json.")
    d_in, d_sae = settings.size("d_in"), settings.size("d_sae")
    kind = _kind(settings, path)
    _refuse_options(settings, told, kind, path)
    if packing := settings.get("storage"):
        tensors = unpack_matrices(tensors, Storage(**packing), d_in)
    tensors = _plain_tensors(tensors, kind, settings, path)
    trained_as = told.get("trained_as") or told.get("training_architecture")
    if kind in _UNFINISHED:
        trained_as, tensors = kind, _with_threshold(tensors, path)
    ours, k = ARCHITECTURES.get(kind, "jumprelu"), _k(settings)
    if trained_as in _UNFINISHED and k and bool((tensors["threshold"] == tensors["threshold"].flatten()[0]).all()):
        ours, tensors["threshold"] = "batchtopk", tensors["threshold"].flatten()[0]
    hook = told.get("hook_name") or told.get("hook_point") or ""
    common: dict[str, Any] = dict(d_in=d_in, d_sae=d_sae, k=k, model_name=told.get("model_name") or "", hook_name=hook)
    common |= {"hook_layer": told.get("hook_layer")}
    if kind in _TRANSCODERS:
        ours, skip = _TRANSCODERS[kind]
        if skip != ("W_skip" in tensors):
            raise KeyError("W_skip")
        out = told.get("hook_name_out") or ""
        settings.finish(_HARMLESS)
        return as_transcoder(path, Stored(ours, tensors, centred=False, hook_name_out=out or "?", **common))
    centred = settings.only("apply_b_dec_to_input", (True, False), "it is true or false", default=True)
    settings.finish(_HARMLESS)
    return Stored(ours, tensors, centred=centred, **common)


def _kind(settings: Settings, path: str) -> str:
    """SAELens' name of the architecture, from `architecture` and, before version 6, from the activation's name."""
    kind = settings.get("architecture", "standard")
    name = settings.get("activation_fn") or settings.get("activation_fn_str") or "relu"
    options = dict(settings.get("activation_fn_kwargs") or {})
    settings.get("activation_fn_str")
    if name == "topk" and kind in ("standard", "topk"):
        kind = "topk"
    elif name != "relu":
        raise ConceptLabError(
            f"{path} uses the activation {name!r} with {kind!r}, which is not supported; use a dictionary with relu, "
            "topk, jumprelu or gated features."
        )
    if kind == "topk":
        options.pop("k", None)
    for off in ("signed", "use_sparse_activations"):
        if options.get(off) is False:
            del options[off]
    if options:
        key = next(iter(options))
        raise ConceptLabError(
            f"{path} has activation_fn_kwargs[{key!r}] = {options[key]!r}, which changes the features in a way that is "
            "not supported; use a dictionary without it."
        )
    known = [*ARCHITECTURES, *_UNFINISHED, *_TRANSCODERS]
    if kind not in known:
        raise ConceptLabError(
            f"Unknown architecture {kind!r} of {path}; known are {', '.join(known)}: use a dictionary of one of these."
        )
    return kind


def _refuse_options(settings: Settings, told: Settings, kind: str, path: str) -> None:
    """What cannot be folded into the weights: to ignore it would give wrong activations silently."""
    settings.dtype()
    normalise = settings.get("normalize_activations") or "none"
    if normalise in ("layer_norm", "constant_norm_rescale"):
        raise ConceptLabError(
            f"{path} normalises every token by its own size ({normalise}), which no weights can hold; use a dictionary "
            "that was trained on raw activations or with one factor for all tokens."
        )
    if normalise == "covariance_whitening":
        raise ConceptLabError(
            f"{path} whitens its inputs by a matrix that its files do not hold; call fold_activation_whitening in "
            "sae-lens and save it again."
        )
    if normalise != "none":
        raise ConceptLabError(
            f"{path} scales its inputs by one factor ({normalise}), which its files do not hold; call "
            "fold_activation_norm_scaling_factor in sae-lens and save it again."
        )
    settings.only("reshape_activations", ("none",), "attention heads are not supported, use another place")
    for key in ("hook_head_index", "hook_point_head_index", "hook_head_index_out"):
        told.only(key, (), "single attention heads are not supported, use a dictionary of a whole place")
        settings.get(key)
    for key in ("model_name", "hook_name", "hook_point", "hook_layer", "hook_name_out", "training_architecture"):
        settings.get(key)
    if settings.get("rescale_acts_by_decoder_norm") and kind not in ("topk", *_UNFINISHED):
        raise ConceptLabError(f"{path} rescales {kind} features by decoder norms; fold the norms and save it again.")
    for key in ("multi_topk", "use_b_dec_out", "scaling_factor_is_folded"):
        settings.only(key, (False,), "that is not supported, use a dictionary without it")
    processed = dict(told.get("model_from_pretrained_kwargs") or {})
    settings.get("model_from_pretrained_kwargs")
    if on := [key for key, value in processed.items() if value not in (False, None)]:
        raise ConceptLabError(
            f"{path} was trained on a model with processed weights ({on[0]} = {processed[on[0]]!r}), whose activations "
            "differ from those of the model itself; use a dictionary of the unprocessed model."
        )
    if kind in _TRANSCODERS:
        settings.only("apply_b_dec_to_input", (False,), "a transcoder's bias has the width of its output")


def _plain_tensors(tensors: dict[str, Tensor], kind: str, settings: Settings, path: str) -> dict[str, Tensor]:
    factor = tensors.get("scaling_factor")
    settings.only("finetuning_scaling_factor", (False, True), "it is true or false")
    if factor is not None and not torch.allclose(factor.float(), torch.ones(())):
        raise ConceptLabError(f"{path} has a fine-tuned scaling factor; multiply W_dec's rows by it and save it again.")
    tensors = {n: t.float() for n, t in tensors.items() if n not in ("scaling_factor", "log_feature_sparsity")}
    only_tensors(tensors, _TENSORS, path)
    if settings.get("rescale_acts_by_decoder_norm"):  # scores are multiplied by |W_dec_i|, values divided by it again
        tensors = unit_rows(tensors)
    return tensors


def _with_threshold(tensors: dict[str, Tensor], path: str) -> dict[str, Tensor]:
    """An unfinished BatchTopK training has its running threshold as a buffer."""
    threshold = tensors.pop("topk_threshold", None)
    if threshold is None or float(threshold) <= 0:
        raise ConceptLabError(
            f"{path} is an unfinished training without a threshold; finish it in sae-lens and use save_inference_model."
        )
    return tensors | {"threshold": threshold.reshape(1)}


def _k(settings: Settings) -> int:
    k = settings.get("k") or (settings.get("activation_fn_kwargs") or {}).get("k") or 0
    if isinstance(k, bool) or not isinstance(k, int | float) or not k >= 0:
        raise ConceptLabError(f"{settings.path}: k is {k!r}, not a number of features.")
    return round(k)
