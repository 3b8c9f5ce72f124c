"""Is this model what the rest of the library takes it for? Three identities, checked on every layer when it is loaded.

    logits       readout(resid_post of the last layer) = logits
    residual     attn_contribution + mlp_contribution  = resid_post - resid_pre
    values       neurons @ down_proj = mlp_output, neurons @ value_vectors (/ rms(mlp_output) where a norm follows the
                 MLP) = mlp_contribution

A multiplier, bias, norm or branch that `sites` does not know breaks one of them; the model is refused with its name.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core import ConceptLabError
from .sites import SITES, Site, epsilon

if TYPE_CHECKING:
    from .language_model import LanguageModel

TEXT = "In 1969 two people walked on the Moon; water boils at 100 degrees, and bees make honey."
ROUNDINGS = 16  # units in the last place that a comparison may be off, relative to what is compared
LEAST = 1e-4  # and never less than this: float32 sums in another order


def check_structure(name: str, hf: Any) -> None:
    """Refuse (ConceptLabError) what is not a stack of blocks with attention and a dense MLP; reads no weight."""
    kind, handled = type(hf).__name__, "Concept Lab handles Llama-, Gemma-2/3-, Qwen- and OLMo-type decoders"
    decoder = hf.get_decoder()
    blocks = getattr(decoder, "layers", None)
    for layer, block in enumerate(blocks or ()):
        if any(path.rsplit(".")[-1] == "experts" for path, _ in block.named_modules()):
            raise ConceptLabError(
                f"{name} is a mixture of experts ({kind}, from layer {layer}): its neurons have no one set of value "
                "vectors, so choose a model with dense MLP layers."
            )
        down = getattr(getattr(block, "mlp", None), "down_proj", None)
        if down is None:
            raise ConceptLabError(f"{name} is a {kind}, whose MLP layers have no down_proj; {handled}.")
        if not isinstance(down, nn.Linear) or tuple(down.weight.shape) != (down.out_features, down.in_features):
            raise ConceptLabError(
                f"{name} keeps its down projections as {type(down).__name__}, which cannot be read or edited; load "
                "its unquantised weights."
            )
        if not hasattr(block, "self_attn"):
            raise ConceptLabError(f"{name} is a {kind}, whose layer {layer} has no attention; {handled}.")
    if not blocks:
        raise ConceptLabError(f"{name} is a {kind}, whose MLP layers have no down_proj; {handled}.")
    if not isinstance(getattr(decoder, "norm", None), nn.Module):
        raise ConceptLabError(f"{name} is a {kind} without a final norm before its unembedding; {handled}.")


@torch.no_grad()
def check_architecture(lm: LanguageModel) -> dict[str, float]:
    """Largest relative deviation of each identity, from one forward pass over a short text.

    Raises ConceptLabError with the identity and the layer where one is larger than the model's dtype explains, and
    where an activation is not finite. 0.2 s for SmolLM2 on one free core.
    """
    ids, _ = lm.tokens(TEXT, min(32, lm.max_ctx or 32))
    seen: dict[Site, Tensor] = {}
    sites = [(kind, layer) for kind in SITES for layer in range(lm.n_layers)]
    with lm.intervene({site: functools.partial(_keep, seen, site) for site in sites}):
        logits = lm.logits(ids)
    largest = {"logits": 0.0, "residual": 0.0, "values": 0.0}
    for layer in range(lm.n_layers):
        at = {kind: _seen(lm, seen, kind, layer) for kind in SITES}
        for name, what, deviation in _deviations(lm, layer, at):
            largest[name] = max(largest[name], _accept(lm, f"at layer {layer} {what}", deviation))
    final = seen["resid_post", lm.n_layers - 1].to(lm.dtype)
    read = lm.readout(final).float()
    finite(lm, logits, "the logits")
    deviation = _relative(read - logits.float(), logits.float())
    largest["logits"] = _accept(lm, "the final norm and the unembedding do not give the model's logits", deviation)
    return largest


def _keep(seen: dict[Site, Tensor], site: Site, activation: Tensor) -> None:
    seen[site] = activation.detach().clone()  # some layers go on to change their output in place


def _seen(lm: LanguageModel, seen: dict[Site, Tensor], kind: str, layer: int) -> Tensor:
    if (kind, layer) not in seen:
        raise _refusal(lm, f"layer {layer} never passes the site {kind}")
    return finite(lm, seen[kind, layer], f"{kind} at layer {layer}").float()


def _deviations(lm: LanguageModel, layer: int, at: dict[str, Tensor]) -> list[tuple[str, str, float]]:
    """(identity, what does not hold if it is large, largest deviation over the tokens) of one layer."""
    written = at["neurons"] @ lm.down_proj(layer).float()
    added = at["neurons"] @ lm.value_vectors(layer).float()
    norm = lm.post_mlp_norm(layer)
    if norm is not None:
        added = added / (at["mlp_output"].square().mean(-1, keepdim=True) + epsilon(norm)).sqrt()
    parts = at["attn_contribution"] + at["mlp_contribution"]
    change = at["resid_post"] - at["resid_pre"]
    rounding = 2 * torch.finfo(lm.dtype).eps * at["resid_post"].norm(dim=-1)  # the stream is kept in the model's dtype
    return [
        ("residual", "attention and MLP do not sum to what the block adds to the residual stream",
         _relative(change - parts, parts, rounding)),
        ("values", "neurons times the down projection are not what the MLP writes",
         _relative(written - at["mlp_output"], at["mlp_output"])),
        ("values", "neurons times the value vectors are not what the MLP adds to the residual stream",
         _relative(added - at["mlp_contribution"], at["mlp_contribution"])),
    ]  # fmt: skip


def _relative(difference: Tensor, to: Tensor, allowed: Tensor | float = 0.0) -> float:
    """Largest norm of the difference over the tokens beyond what is allowed, relative to the norm of `to`."""
    excess = (difference.norm(dim=-1) - allowed).clamp(min=0)
    return float((excess / to.norm(dim=-1).clamp(min=1e-30)).max())


def _accept(lm: LanguageModel, what: str, deviation: float) -> float:
    if not deviation <= max(LEAST, ROUNDINGS * torch.finfo(lm.dtype).eps):
        raise _refusal(lm, f"{what} (off by {deviation:.2g} of their size)")
    return deviation


def _refusal(lm: LanguageModel, what: str) -> ConceptLabError:
    return ConceptLabError(
        f"{lm.name} is a {type(lm.hf).__name__} that Concept Lab would read wrongly: {what}; choose another model."
    )


def finite(lm: LanguageModel, x: Tensor, what: str) -> Tensor:
    """`x`. Raises ConceptLabError where it is not finite, as Gemma's residual stream is in float16."""
    if not bool(torch.isfinite(x).all()):
        advice = "load it with dtype=torch.float32" if x.dtype != torch.float32 else "its weights are damaged"
        raise ConceptLabError(f"{lm.name} computes values that are not finite ({what}, in {x.dtype}); {advice}.")
    return x
