"""What the names of others mean: places in a model by hook, and layers, models and sites in the folders of releases."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

# modules of a transformers model, by what follows `model.layers.N.`, as TransformerLens' hooks
_MODULES = {
    "": "hook_resid_post",
    "output": "hook_resid_post",
    "input": "hook_resid_pre",
    "mlp": "mlp.hook_out",
    "mlp.output": "mlp.hook_out",
    "mlp.input": "mlp.hook_in",
    "mlp.down_proj": "mlp.hook_out",
    "mlp.down_proj.output": "mlp.hook_out",
    "mlp.down_proj.input": "mlp.hook_post",
    "pre_feedforward_layernorm": "mlp.hook_in",
    "pre_feedforward_layernorm.output": "mlp.hook_in",
    "post_feedforward_layernorm": "hook_mlp_out",
    "post_feedforward_layernorm.output": "hook_mlp_out",
    "self_attn": "attn.hook_out",
    "self_attn.output": "attn.hook_out",
}


def hook_in_ours(name: str) -> str:
    """A hook in TransformerLens' names; `model.layers.6.mlp` becomes `blocks.6.mlp.hook_out`. Others stay as they are.

    A module stands for its output. After `self_attn` a norm may follow (Gemma), so that it is `attn.hook_out`, which
    `load_sae(lm=)` resolves.
    """
    match = re.fullmatch(r"(?:model\.)?(?:language_model\.)?layers[._](\d+)(?:\.(.+))?", name)
    if match and (match[2] or "") in _MODULES:
        return f"blocks.{match[1]}.{_MODULES[match[2] or '']}"
    match = re.fullmatch(r"(resid_pre|resid_post|mlp|mlp_out)_layer_(\d+)", name)  # dictionary_learning's habit
    if match:
        hook = {"resid_pre": "hook_resid_pre", "resid_post": "hook_resid_post"}.get(match[1], "mlp.hook_out")
        return f"blocks.{match[2]}.{hook}"
    return name


def layer_of(hook_name: str) -> int | None:
    """The layer that a hook's name states."""
    match = re.search(r"(?:blocks|layers)[._](\d+)(?:[._]|$)", hook_name)
    return int(match[1]) if match else None


# folders that state a layer: `layer_12`, `layer_5_width_16k_l0_60`, `layers.3.mlp`, `blocks.1.hook_mlp_out`, `L10R`,
# `Llama3_1-8B-Base-L0M-8x`
_LAYER = (
    r"layers?[._](\d+)(?:$|\.\w+$|_width_)",
    r"blocks\.(\d+)\.",
    r"(?:.*-)?L(\d+)(?:R|M|A|TC)(?:-\d+x)?$",
)


def layer_in(path: str, loosely: bool = False) -> int | None:
    """The layer that a folder's path states: the last part of it that states one counts.

    `loosely`: whatever follows the number, for names that were given to choose by (`layer_5_seed_1`).
    """
    for part in reversed(PurePosixPath(path.replace("\\", "/")).parts):
        for pattern in (*_LAYER, r"layers?[._](\d+)") if loosely else _LAYER:
            if match := re.match(pattern, part):
                return int(match[1])
    return None


# ---- Gemma Scope: the files name neither model nor place, repository and folder do ------------------------
_SITES = {  # Gemma Scope 1 in the repository's name, 2 in the folder after it: what is read, what is written
    r"mlp(?:_out(?:_all)?)?": ("hook_mlp_out", ""),
    r"res(?:id_post(?:_all)?)?": ("hook_resid_post", ""),
    r"att(?:n_out(?:_all)?)?": ("attn.hook_z", ""),
    r"transcoders": ("ln2.hook_normalized", "hook_mlp_out"),  # before the gain: it was folded into the MLP
    r"transcoder(?:_all)?": ("mlp.hook_in", "hook_mlp_out"),
}


def gemma_release(path: str) -> tuple[str, str, str]:
    """Model, hook read and hook written (both without `blocks.N.`) of a Gemma Scope path; "" where it does not say.

    `google/gemma-scope-2b-pt-mlp/layer_12/...` is of google/gemma-2-2b, and
    `google/gemma-scope-2-270m-pt/transcoder_all/layer_5_...` of google/gemma-3-270m-pt. Folders above the repository
    decide nothing.
    """
    parts = PurePosixPath(path.replace("\\", "/")).parts
    for i in reversed(range(len(parts))):
        if match := re.fullmatch(r"(?:.*--)?gemma-scope-(\d+b)-(pt|it)-(\w+?)(?:-canonical)?", parts[i]):
            return f"google/gemma-2-{match[1]}" + "-it" * (match[2] == "it"), *_site(match[3])
        if match := re.fullmatch(r"(?:.*--)?gemma-scope-2-(\d+[mb])-(pt|it)", parts[i]):
            folder = next((part for part in parts[i + 1 :] if _site(part) != ("", "")), "")
            return f"google/gemma-3-{match[1]}-{match[2]}", *_site(folder)
    return "", "", ""


def _site(name: str) -> tuple[str, str]:
    return next((hooks for pattern, hooks in _SITES.items() if re.fullmatch(pattern, name)), ("", ""))
