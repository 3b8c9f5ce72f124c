"""Where a dictionary reads and writes: the one place that says so, and that refuses what does not fit there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..core import ConceptLabError
from ..data import Harvest
from ..models import LanguageModel, Site

if TYPE_CHECKING:
    from .base import SAE


KIND_OF_HOOK = {  # TransformerLens' hook names and ours. Where a norm follows the MLP, `hook_mlp_out` stands after it.
    "hook_resid_pre": "resid_pre",
    "hook_resid_post": "resid_post",
    "mlp.hook_in": "mlp_input",
    "mlp.hook_post": "neurons",
    "mlp.hook_out": "mlp_output",
    "hook_mlp_out": "mlp_contribution",
    "hook_attn_out": "attn_contribution",
}


HOOKS = {kind: hook for hook, kind in KIND_OF_HOOK.items()}


EDITABLE = ("mlp_output", "mlp_contribution")  # what the rows of a down projection write, before and after its norm


def hook_at(kind: str, layer: int) -> str:
    """TransformerLens' name of a place. Raises ConceptLabError for an unknown kind."""
    if kind not in HOOKS:
        raise ConceptLabError(f"No dictionary reads at {kind!r}; the places are {', '.join(HOOKS)}.")
    return f"blocks.{layer}.{HOOKS[kind]}"


def site_of(hook_name: str) -> Site:
    """The place `(kind, layer)` of a hook in TransformerLens' names. Raises ConceptLabError for one we cannot read."""
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook_name)
    if match and match[2] in KIND_OF_HOOK:
        return KIND_OF_HOOK[match[2]], int(match[1])
    if match and match[2] in ("ln2.hook_normalized", "attn.hook_out"):
        raise ConceptLabError(
            f"The hook {hook_name!r} depends on the model's norms; pass lm= to load_sae, which then says which place "
            "it is, or uses a dictionary of another place where there is none."
        )
    raise ConceptLabError(
        f"The hook {hook_name!r} is no place of a LanguageModel; use a dictionary that reads at one of "
        f"{', '.join(KIND_OF_HOOK)}."
    )


def sae_site(sae: SAE) -> Site:
    """The place `(kind, layer)` whose activations a dictionary reads, for `capture`, `intervene` and `harvest`."""
    return site_of(sae.cfg.hook_name)


def written_site(sae: SAE) -> Site:
    """The place whose activations a dictionary reconstructs: where it reads, except for a transcoder."""
    return site_of(getattr(sae.cfg, "hook_name_out", "") or sae.cfg.hook_name)


def is_transcoder(sae: SAE) -> bool:
    """Whether a dictionary reads one place and writes another."""
    return getattr(sae.cfg, "hook_name_out", sae.cfg.hook_name) != sae.cfg.hook_name


def shared_kind(saes: dict[int, SAE]) -> str:
    """The kind of place that dictionaries (layer -> dictionary) read, to harvest for all of them at once.

    Raises ConceptLabError when they read at different kinds of places, or there is none.
    """
    kinds = {layer: sae_site(sae)[0] for layer, sae in saes.items()}
    if not kinds:
        raise ConceptLabError("No dictionary was given, so there is nothing to harvest for; give one per layer.")
    if len(set(kinds.values())) > 1:
        shown = ", ".join(f"layer {layer}: {kind}" for layer, kind in kinds.items())
        raise ConceptLabError(f"The dictionaries read at different places ({shown}); harvest for each kind alone.")
    return next(iter(kinds.values()))


def check_harvest(data: Harvest, sae: SAE) -> None:
    """Raise ConceptLabError unless a harvest holds the activations that a dictionary reads."""
    kind, layer = sae_site(sae)
    if data.kind != kind:
        raise ConceptLabError(
            f"The dictionary reads {kind}, but {data.kind} was harvested; harvest with kind={kind!r}."
        )
    if layer not in data.layers:
        raise ConceptLabError(
            f"The dictionary reads layer {layer}, but layers {list(data.layers)} were harvested; harvest that one too."
        )


def check_editable(sae: SAE) -> None:
    """Raise ConceptLabError unless a dictionary is of what an MLP writes: an edit of the MLP changes nothing else."""
    if is_transcoder(sae):
        raise ConceptLabError(
            f"A transcoder reads {sae.cfg.hook_name} and cannot encode what the MLP's rows write, so it cannot edit "
            "them; use an autoencoder of the MLP's output."
        )
    kind, layer = sae_site(sae)
    if kind not in EDITABLE:
        raise ConceptLabError(
            f"The dictionary of layer {layer} reads {kind} ({sae.cfg.hook_name}), but an edit of the MLP needs one of "
            "the MLP's output (mlp.hook_out or hook_mlp_out)."
        )


def check_fits(lm: LanguageModel, sae: SAE) -> None:
    """Raise ConceptLabError unless the dictionary is of this model (tuned variants count as the same) and width."""
    if model_family(sae.cfg.model_name) != model_family(lm.name):
        raise ConceptLabError(
            f"The dictionary is of {sae.cfg.model_name}, the model is {lm.name}; load the one of this model, "
            "or write your model's name into its cfg.json if it is the same under another name."
        )
    for (kind, layer), width in ((sae_site(sae), sae.cfg.d_in), (written_site(sae), sae.W_dec.shape[1])):
        lm.check_layer(layer)
        wanted = lm.d_mlp if kind == "neurons" else lm.d_model
        if width != wanted:
            raise ConceptLabError(
                f"The dictionary reads activations of width {width}, but {kind} of {lm.name} has width {wanted}."
            )


def model_family(model_name: str) -> str:
    """A model's name without owner, punctuation and what training came after: gemma-3-270m-it is gemma3270m."""
    name = model_name.rstrip("/").rsplit("/", 1)[-1].lower()
    name = re.sub(r"^meta-", "", re.sub(r"-(it|pt|instruct|chat|base)$", "", name))
    return re.sub(r"[^a-z0-9]", "", name)
