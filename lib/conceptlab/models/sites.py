"""The part of `models` that reads and changes activations.

Sites, the places where activations are read or changed, are pairs `(kind, layer)`:

    resid_pre, resid_post   the residual stream before and after a block       [batch, pos, d_model]
    mlp_input               what the MLP reads, behind its norm                [batch, pos, d_model]
    neurons                 MLP activations, the input of the down projection  [batch, pos, d_mlp]
    mlp_output              what the down projection writes; SAEs read this    [batch, pos, d_model]
    mlp_contribution        what the MLP adds to the residual stream           [batch, pos, d_model]
    attn_contribution       what attention adds to the residual stream         [batch, pos, d_model]

`mlp_contribution` differs from `mlp_output` where a model normalises after the MLP (Gemma, OLMo 2, GLM-4): there it is
`mlp_output / rms(mlp_output) * gain`; and where it multiplies before it adds (Granite, MiniCPM): there it is
`multiplier * mlp_output`. `architecture` checks that these hold for a model that is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from ..core import ConceptLabError
from .changes import Change
from .tokens import Tokenized, whole_number

Site = tuple[str, int]

SITES = ("resid_pre", "resid_post", "mlp_input", "neurons", "mlp_output", "mlp_contribution", "attn_contribution")
# (norm after attention, norm after the MLP); in Llama a norm of the first name stands *before* the MLP
_POST_NORMS = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),  # Gemma 2 and 3, OLMo 2
    ("post_self_attn_layernorm", "post_mlp_layernorm"),  # GLM-4
)
_MULTIPLIERS = ("residual_multiplier", "residual_scale")  # of what a block adds: Granite, MiniCPM


class _Stop(Exception):
    """Raised inside a forward pass once everything asked for has been captured."""


class Hooked(Tokenized):
    """What a `LanguageModel` can do at its sites."""

    _blocks: Any  # the decoder's layers; their parts differ from class to class, so no type says more
    _decoder: Any
    readers: Any  # `guards.Readers`

    @property
    def n_layers(self) -> int:
        return len(self._blocks)

    @property
    def device(self) -> torch.device:
        return self._blocks[0].mlp.down_proj.weight.device

    def check_layer(self, layer: int) -> int:
        """`layer` as a non-negative index. Raises when the model has no such layer."""
        index = whole_number(layer, "A layer")
        if not -self.n_layers <= index < self.n_layers:
            raise ConceptLabError(f"{self.name} has layers 0 to {self.n_layers - 1}; layer {index} does not exist.")
        return index % self.n_layers

    @torch.no_grad()
    def capture(
        self, ids: Int[Tensor, "batch pos"], sites: Sequence[Site], mask: Bool[Tensor, "batch pos"] | None = None
    ) -> dict[Site, Tensor]:
        """Activations at `sites` from one forward pass that stops after the deepest of them."""
        return {site: x.detach() for site, x in self.states(ids, sites, mask).items()}

    def states(
        self, ids: Int[Tensor, "batch pos"], sites: Sequence[Site], mask: Bool[Tensor, "batch pos"] | None = None
    ) -> dict[Site, Tensor]:
        """`capture`, with gradients where they are on: what a loss on activations is computed from."""
        found: dict[Site, Tensor] = {}
        wanted = set(sites)

        def keep(site: Site) -> Callable[[Tensor], None]:
            def hook(activation: Tensor) -> None:
                found[site] = activation
                if len(found) == len(wanted):
                    raise _Stop

            return hook

        try:
            with self.intervene({site: keep(site) for site in wanted}):
                self._decoder(self.check_ids(ids).to(self.device), attention_mask=as_long(mask), use_cache=False)
        except _Stop:
            pass
        return {site: found[site] for site in sites}

    @property
    def is_hooked(self) -> bool:
        """Whether a function reads or changes activations at this moment: the weights alone do not say what runs."""
        return any(module._forward_hooks or module._forward_pre_hooks for module in self.hf.modules())

    def intervene(self, hooks: Mapping[Site, Callable[[Tensor], Tensor | None]]) -> Change:
        """Inside the block each function sees the activation at its site and may return a replacement."""

        def begin(change: Change) -> None:
            for (kind, layer), function in hooks.items():
                change.then(self._register(kind, self.check_layer(layer), self._heard(function)).remove)

        return Change(self, f"hooks at {', '.join(f'{kind} {layer}' for kind, layer in hooks)}", begin, weights=False)

    def _heard(self, function: Callable) -> Callable:
        """`function`, deaf to the passes that a guard makes for itself in the middle of another."""
        if self.readers.busy:  # it is the guard's own
            return function
        return lambda x: None if self.readers.busy else function(x)

    def skip_before(self, layer: int) -> Change:
        """Inside the block the layers before `layer` hand their input on unchanged, at no cost.

        For replays: feed what they would have written through a hook at `("resid_pre", layer)`.
        """
        skipped = self._blocks[: self.check_layer(layer)]

        def begin(change: Change) -> None:
            for block in skipped:
                change.then(partial(block.__dict__.pop, "forward", None))
                block.forward = lambda hidden_states, *_args, **_kwargs: hidden_states

        return Change(self, f"skipping layers before {layer}", begin, weights=False)

    # ---- what differs between architectures ---------------------------------------------------------
    def _post_norms(self, layer: int) -> tuple[nn.Module | None, nn.Module | None]:
        """The norms between attention and residual stream and between MLP and residual stream, where there are any."""
        block = self._blocks[layer]
        for after_attention, after_mlp in _POST_NORMS:
            if hasattr(block, after_mlp):
                return getattr(block, after_attention, None), getattr(block, after_mlp)
        return None, None

    def _pre_mlp_norm(self, layer: int) -> nn.Module | None:
        name = "post_attention_layernorm" if self._post_norms(layer)[1] is None else "pre_feedforward_layernorm"
        return getattr(self._blocks[layer], name, None)

    def post_mlp_norm(self, layer: int) -> nn.Module | None:
        """The norm between MLP and residual stream; None where there is none."""
        return self._post_norms(self.check_layer(layer))[1]

    def post_attn_norm(self, layer: int) -> nn.Module | None:
        """The norm between attention and residual stream; None where there is none."""
        return self._post_norms(self.check_layer(layer))[0]

    def _multiplier(self, layer: int) -> float:
        """What attention's and the MLP's output is multiplied by before it is added to the residual stream."""
        found = (getattr(self._blocks[layer], name, None) for name in _MULTIPLIERS)
        return next((float(x) for x in found if isinstance(x, int | float)), 1.0)

    def _register(self, kind: str, layer: int, function: Callable):
        block = self._blocks[layer]
        if kind == "resid_pre":
            return block.register_forward_pre_hook(input_hook(function), with_kwargs=True)
        if kind == "mlp_input":
            return block.mlp.register_forward_pre_hook(input_hook(function), with_kwargs=True)
        if kind == "neurons":
            return block.mlp.down_proj.register_forward_pre_hook(input_hook(function), with_kwargs=True)
        after_attention, after_mlp = self._post_norms(layer)
        modules = {
            "resid_post": block,
            "mlp_output": block.mlp,
            "mlp_contribution": block.mlp if after_mlp is None else after_mlp,
            "attn_contribution": block.self_attn if after_attention is None else after_attention,
        }
        if kind not in modules:
            raise ConceptLabError(f"Unknown site {kind!r}; the sites are {', '.join(SITES)}.")
        scale = self._multiplier(layer) if kind.endswith("contribution") else 1.0
        return modules[kind].register_forward_hook(output_hook(function if scale == 1 else _scaled(function, scale)))


def as_long(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.long()


def _scaled(function: Callable, scale: float) -> Callable:
    """`function` on what is added to the residual stream, around the module that writes `1 / scale` of it."""

    def around(written: Tensor) -> Tensor | None:
        added = written * scale
        new = function(added)
        return None if new is None or new is added else new / scale

    return around


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

    Holds for RMSNorm with weight `w` (Llama) or `1 + w` (Gemma) and for LayerNorm with or without parameters; the
    difference of the probe and its negative takes a bias out.
    """
    if norm is None:
        return torch.ones(d_model, device=device, dtype=dtype)
    probe = torch.ones(d_model, device=device, dtype=torch.float32)
    probe[1::2] = -1
    both = norm(torch.stack([probe, -probe]).to(dtype)).float()
    gain = (both[0] - both[1]) / 2 * probe * (1 + epsilon(norm)) ** 0.5
    return gain.to(dtype)


@torch.no_grad()
def takes_mean_out(norm: nn.Module, d_model: int, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a norm layer subtracts the mean (LayerNorm) or not (RMSNorm), measured on a probe and the probe + 1."""
    probe = torch.ones(d_model, device=device, dtype=dtype)
    probe[1::2] = -1
    plain, shifted = norm(torch.stack([probe, probe + 1])).float()
    return bool((plain - shifted).norm() < 0.1 * plain.norm())


def epsilon(norm: nn.Module) -> float:
    """What a norm layer adds to the mean square before it takes the root."""
    return next((float(getattr(norm, n)) for n in ("eps", "variance_epsilon") if hasattr(norm, n)), 0.0)
