"""sparsify's dictionaries and circuit-tracer's transcoders."""

from __future__ import annotations

import re
from collections.abc import Collection

from torch import Tensor

from ...core import ConceptLabError
from .settings import Settings
from .stored import Stored, as_transcoder, either, matrix_shape, only_tensors


def read_sparsify(cfg: dict, tensors: dict[str, Tensor], path: str, accept: Collection[str]) -> Stored:
    """TopK that subtracts b_dec; the folder is called after the module it reads, `layers.6.mlp`."""
    settings = Settings(cfg, path, accept)
    for key in ("transcode", "skip_connection", "signed", "multi_topk"):
        settings.only(key, (False,), "that is not supported, use an autoencoder with positive features")
    settings.only("activation", ("topk",), "only topk is supported of sparsify")
    d_in = settings.size("d_in")
    d_sae = settings.get("num_latents") or d_in * settings.size("expansion_factor")
    settings.get("expansion_factor")
    only_tensors(tensors, {"encoder.weight", "encoder.bias", "W_dec", "b_dec"}, path)
    found = {
        "W_enc": tensors["encoder.weight"].T,
        "b_enc": either(tensors, "encoder.bias"),
        "W_dec": either(tensors, "W_dec"),
        "b_dec": tensors["b_dec"],
    }
    match = re.search(r"(layers?[._]\d+(?:\.\w+)?)/?$", path)
    hook = match[1].replace("layer_", "layers.").replace("layers_", "layers.") if match else ""
    k, model = settings.size("k"), settings.get("model", "")
    training = {key for key in cfg if key not in settings.read and key in _RUN}
    settings.finish({"normalize_decoder", *training})
    return Stored("topk", found, d_in, int(d_sae), centred=True, k=k, model_name=model, hook_name=hook)


_RUN = frozenset(
    """
    adam_beta1 adam_beta2 adam_epsilon auxk_alpha batch_size ctx_len data_args data_preprocessing_num_proc dataset
    dead_feature_threshold distribute_modules exclude_tokens finetune grad_acc_steps hf_token hookpoints init_seeds
    k_decay_steps layer_stride layers load_in_8bit log_to_wandb loss_fn lr lr_warmup_steps max_examples
    micro_acc_steps optimizer resume revision run_name sae save_best save_dir save_every shuffle_seed split text_column
    wandb_log_frequency
    """.split()
)


def read_circuit_tracer(cfg: dict, tensors: dict[str, Tensor], path: str, accept: Collection[str]) -> Stored:
    """`layer_N.safetensors` with a `config.yaml` for all layers: ReLU or JumpReLU transcoders, some with a skip.

    `W_enc` is [d_sae, d_in]; `W_dec` is [d_sae, d_out] in later files and its transpose in earlier ones.
    """
    settings = Settings(cfg, path, accept)
    settings.only("model_kind", ("transcoder_set",), "cross-layer transcoders are not supported")
    only_tensors(tensors, {"W_enc", "W_dec", "b_enc", "b_dec", "W_skip", "activation_function.threshold"}, path)
    d_sae, d_in = matrix_shape(tensors["W_enc"], "W_enc")
    W_dec, b_dec = tensors["W_dec"], tensors["b_dec"]
    if tuple(W_dec.shape) == (len(b_dec), d_sae) and len(b_dec) != d_sae:
        W_dec = W_dec.T
    found = {"W_enc": tensors["W_enc"].T, "W_dec": W_dec, "b_enc": tensors["b_enc"], "b_dec": b_dec}
    if "W_skip" in tensors:
        found["W_skip"] = tensors["W_skip"]
    kind = "relu"
    if "activation_function.threshold" in tensors:
        kind, found["threshold"] = "jumprelu", tensors["activation_function.threshold"].flatten()
    numbered = re.search(r"layer_(\d+)\.safetensors$", path)
    assert numbered is not None  # what a main file of this layout is called
    layer = int(numbered[1])
    hooks = [settings.get(f"feature_{side}_hook") for side in ("input", "output")]
    if None in hooks:
        raise ConceptLabError(
            f"{path} needs a config.yaml beside it that names model_name, feature_input_hook and feature_output_hook; "
            "write one."
        )
    model = settings.get("model_name", "")
    settings.finish({"transcoders", "scan", "tokenizer", "neuronpedia"})
    hook, out = (f"blocks.{layer}.{name}" for name in hooks)
    stored = Stored(kind, found, d_in, d_sae, False, 0, model, hook, layer, out)
    return as_transcoder(path, stored)
