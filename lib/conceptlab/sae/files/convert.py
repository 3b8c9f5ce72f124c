"""dictionary_learning's `ae.pt` and `config.json`, converted once into files without pickle.

Layouts read from published configurations and the library's code (August 2025). Nothing in `ae.pt` is executed.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ...core import ConceptLabError
from ..base import SAE
from ..checkpoint import check_folder
from ..sites import sae_site
from .io import build, save_sae
from .names import hook_in_ours
from .settings import Settings
from .stored import Stored, either, only_tensors
from .tensors import check_finite, read_mapping, read_state

_KINDS = {  # dict_class -> (our architecture, whether the decoder's bias is subtracted from the input)
    "AutoEncoder": ("relu", True),
    "AutoEncoderNew": ("relu", False),
    "GatedAutoEncoder": ("gated", True),
    "AutoEncoderTopK": ("topk", True),
    "BatchTopKSAE": ("batchtopk", True),
    "MatryoshkaBatchTopKSAE": ("batchtopk", True),
    "JumpReluAutoEncoder": ("jumprelu", False),
}


_NAMES = {  # ours -> theirs; the decoder's bias has three names
    "b_dec": ("b_dec", "bias", "decoder_bias", "decoder.bias"),
    "b_enc": ("b_enc", "encoder.bias"),
    "b_gate": ("gate_bias",),
    "b_mag": ("mag_bias",),
    "r_mag": ("r_mag",),
    "threshold": ("threshold",),
}


_WEIGHTS = {"encoder.weight", "decoder.weight", "W_enc", "W_dec"}


_BUFFER = frozenset(
    """
    ctx_len d_submodule data device io n_ctxs n_models out_batch_size refresh_batch_size remove_bos submodule_name
    add_special_tokens remove_high_norm
    """.split()
)


def convert(
    source: Path, out: Path, model_name: str | None = None, hook_name: str | None = None, storage: str | None = None
) -> SAE:
    """Read the dictionary in `source` (`ae.pt`, `config.json`), write it to `out` as `save_sae` does, and return it.

    `model_name`, `hook_name` (TransformerLens' name of the place it reads): where the configuration does not say.
    `storage`: as for `save_sae`. Raises ConceptLabError for a folder without both files, anything but tensors in
    `ae.pt`, classes and settings that are not known, shapes that do not fit, and an `out` that cannot be written.
    """
    source, out = Path(source), Path(out)
    check_folder(out)
    for name in ("ae.pt", "config.json"):
        if not (source / name).is_file():
            raise ConceptLabError(f"{source} has no {name}; give the folder of one dictionary of dictionary_learning.")
    stored = _read(source)
    sae = build(stored, str(source), None, model_name or stored.model_name, hook_in_ours(hook_name or stored.hook_name))
    sae_site(sae)  # raises for a place that cannot be read here
    save_sae(sae, out, storage)
    return sae


def _read(source: Path) -> Stored:
    path = str(source)
    try:
        config = Settings(read_mapping(source / "config.json"), path)
    except (ValueError, OSError) as error:
        raise ConceptLabError(f"{path}/config.json cannot be read ({type(error).__name__}); fetch it again.") from None
    trainer, buffer = (Settings(config.get(name) or {}, path) for name in ("trainer", "buffer"))
    config.finish()
    kind = trainer.get("dict_class")
    if kind not in _KINDS:
        raise ConceptLabError(f"{path} is of the class {kind!r}; known are {', '.join(_KINDS)}.")
    buffer.only("io", ("out",), "it reads a module's input, or reads one place and writes another: not supported")
    for key in ("rescale_acts", "normalize_activations"):
        buffer.only(key, (False,), "it was trained on scaled activations by a factor that its files do not hold")
    buffer.finish(_BUFFER)
    try:
        d_in, d_sae = trainer.size("activation_dim"), trainer.size("dict_size")
    except KeyError as error:
        raise ConceptLabError(f"{path}/config.json does not say {error.args[0]}; fetch it again.") from None
    tensors = read_state(source / "ae.pt")
    check_finite(tensors, path)
    architecture, centred = _KINDS[kind]
    found = _ours(tensors, d_in, d_sae, path)
    k = _k(trainer, tensors, path) if architecture in ("topk", "batchtopk") else 0
    if architecture == "batchtopk" and float(found["threshold"]) < 0:
        raise ConceptLabError(f"{path} has no threshold yet (it is {float(found['threshold'])}); train it longer.")
    if architecture == "topk":
        found.pop("threshold", None)  # theirs may be used in place of TopK; what `encode` does there is TopK
    hook = trainer.get("submodule_name") or ""
    return Stored(
        architecture,
        found,
        d_in,
        d_sae,
        centred,
        k,
        trainer.get("lm_name") or "",
        hook_in_ours(hook),
        trainer.get("layer"),
    )


def _ours(tensors: dict[str, Tensor], d_in: int, d_sae: int, path: str) -> dict[str, Tensor]:
    """Our names and orientation. Raises ConceptLabError for other tensors and for sizes that config.json denies."""
    only_tensors(
        tensors, {*_WEIGHTS, "k", "active_features", "group_sizes", *(n for x in _NAMES.values() for n in x)}, path
    )
    try:
        encoder, decoder = either(tensors, "encoder.weight", "W_enc"), either(tensors, "decoder.weight", "W_dec")
    except KeyError as error:
        raise ConceptLabError(f"{path}/ae.pt lacks {error.args[0]}; fetch it again.") from None
    found = {
        "W_enc": encoder.T if "encoder.weight" in tensors else encoder,
        "W_dec": decoder.T if "decoder.weight" in tensors else decoder,
    }
    for ours, theirs in _NAMES.items():
        if name := next((n for n in theirs if n in tensors), None):
            found[ours] = tensors[name]
    sizes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    for name, shape in sizes.items():
        if name not in found or tuple(found[name].shape) != shape:
            raise ConceptLabError(f"{path}/ae.pt: {name} is missing or not of shape {shape}, as config.json states.")
    return {name: t.float().contiguous() for name, t in found.items()}


def _k(trainer: Settings, tensors: dict[str, Tensor], path: str) -> int:
    k = trainer.size("k") if trainer.get("k") is not None else int(tensors.get("k", torch.tensor(0)))
    if "k" in tensors and int(tensors["k"]) != k:
        raise ConceptLabError(f"{path}: k is {k} in config.json and {int(tensors['k'])} in ae.pt; fetch both again.")
    return k
