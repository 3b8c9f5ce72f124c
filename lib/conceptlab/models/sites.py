"""The part of `models` that reads and changes activations.

Sites, the places where activations are read or changed, are pairs `(kind, layer)`:

    resid_pre, resid_post   the residual stream before and after a block       [batch, pos, d_model]
    neurons                 MLP activations, the input of the down projection  [batch, pos, d_mlp]
    mlp_output              what the down projection writes; SAEs read this    [batch, pos, d_model]
    mlp_contribution        what the MLP adds to the residual stream           [batch, pos, d_model]
    attn_contribution       what attention adds to the residual stream         [batch, pos, d_model]

`mlp_contribution` differs from `mlp_output` where a model normalises after the MLP (Gemma, OLMo 2): there it is
`mlp_output / rms(mlp_output) * gain`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from ..core import ConceptLabError
from .changes import Change

Site = tuple[str, int]


SITES = ("resid_pre", "resid_post", "neurons", "mlp_output", "mlp_contribution", "attn_contribution")


class _Stop(Exception):
    """Raised inside a forward pass once everything asked for has been captured."""


class Hooked:
    """What a `LanguageModel` can do at its sites."""

    @torch.no_grad()
    def capture(
        self, ids: Int[Tensor, "batch pos"], sites: Sequence[Site], mask: Bool[Tensor, "batch pos"] | None = None
    ) -> dict[Site, Tensor]:
        """Activations at `sites` from one forward pass that stops after the deepest of them."""
        found: dict[Site, Tensor] = {}
        wanted = set(sites)

        def keep(site: Site) -> Callable[[Tensor], None]:
            def hook(activation: Tensor) -> None:
                found[site] = activation.detach()
                if len(found) == len(wanted):
                    raise _Stop

            return hook

        try:
            with self.intervene({site: keep(site) for site in wanted}):
                self._decoder(self._check_ids(ids).to(self.device), attention_mask=as_long(mask), use_cache=False)
        except _Stop:
            pass
        return {site: found[site] for site in sites}

    def intervene(self, hooks: dict[Site, Callable[[Tensor], Tensor | None]]) -> Change:
        """Inside the block each function sees the activation at its site and may return a replacement."""

        def begin(change: Change) -> None:
            for (kind, layer), function in hooks.items():
                change.then(self._register(kind, self.check_layer(layer), function).remove)

        return Change(self, f"hooks at {', '.join(f'{kind} {layer}' for kind, layer in hooks)}", begin, weights=False)

    def skip_before(self, layer: int) -> Change:
        """Inside the block the layers before `layer` hand their input on unchanged, at no cost.

        For replays: feed what they would have written through a hook at `("resid_pre", layer)`.
        """
        skipped = self._blocks[: self.check_layer(layer)]

        def begin(change: Change) -> None:
            for block in skipped:
                change.then(lambda block=block: vars(block).pop("forward", None))
                block.forward = lambda hidden_states, *_args, **_kwargs: hidden_states

        return Change(self, f"skipping layers before {layer}", begin, weights=False)

    # ---- what differs between architectures ---------------------------------------------------------
    def _post_mlp_norm(self, layer: int) -> nn.Module | None:
        return getattr(self._blocks[layer], "post_feedforward_layernorm", None)

    def _post_attn_norm(self, layer: int) -> nn.Module | None:
        block = self._blocks[layer]  # in Llama a norm of this name stands *before* the MLP
        return block.post_attention_layernorm if self._post_mlp_norm(layer) is not None else None

    def _register(self, kind: str, layer: int, function: Callable):
        block = self._blocks[layer]
        if kind == "resid_pre":
            return block.register_forward_pre_hook(input_hook(function), with_kwargs=True)
        if kind == "neurons":
            return block.mlp.down_proj.register_forward_pre_hook(input_hook(function), with_kwargs=True)
        modules = {
            "resid_post": block,
            "mlp_output": block.mlp,
            "mlp_contribution": self._post_mlp_norm(layer) or block.mlp,
            "attn_contribution": self._post_attn_norm(layer) or block.self_attn,
        }
        if kind not in modules:
            raise ConceptLabError(f"Unknown site {kind!r}; the sites are {', '.join(SITES)}.")
        return modules[kind].register_forward_hook(output_hook(function))


def as_long(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.long()


def input_hook(function: Callable) -> Callable:
    def hook(_module, args, kwargs):
        if args:
            new = function(args[0])
            return None if new is None else ((new, *args[1:]), kwargs)
        new = function(kwargs["hidden_states"])
        return None if new is None else (args, kwargs | {"hidden_states": new})

    return hook


def output_hook(function: Callable) -> Callable:
    def hook(_module, _args, output):
        if isinstance(output, tuple):
            new = function(output[0])
            return None if new is None else (new, *output[1:])
        return function(output)

    return hook


@torch.no_grad()
def norm_gain(norm: nn.Module | None, d_model: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Per-dimension gain of a norm layer, measured: an alternating +1/-1 input has mean 0 and rms 1.

    Holds for RMSNorm with weight `w` (Llama) or `1 + w` (Gemma) and for LayerNorm without parameters (OLMo).
    """
    if norm is None:
        return torch.ones(d_model, device=device, dtype=dtype)
    probe = torch.ones(d_model, device=device, dtype=torch.float32)
    probe[1::2] = -1
    eps = next((getattr(norm, n) for n in ("eps", "variance_epsilon") if hasattr(norm, n)), 0.0)
    gain = norm(probe.to(dtype)).float() * probe * (1 + eps) ** 0.5
    return gain.to(dtype)
