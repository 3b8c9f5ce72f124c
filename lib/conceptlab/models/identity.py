"""The parameters of a loaded model by name, and which weights they are at this moment."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .fingerprint import fingerprint


class Identified:
    """What a `LanguageModel` knows about the identity of its weights."""

    hf: Any
    # address of each weight at the last fingerprint -> the weight and torch's version counter; and what it was
    _printed: tuple[dict[int, tuple[weakref.ref, int]], str] | None = None

    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter by its name in transformers; shared ones (tied embeddings) once, under the embedding's."""
        found, seen = {}, set()

        def walk(prefix: str, module: nn.Module) -> None:  # as `named_parameters` does, at a fifth of its time: every
            for name, p in module._parameters.items():  # edit that is applied comes past here
                if p is not None and id(p) not in seen:
                    seen.add(id(p))
                    found[prefix + name] = p
            for name, child in module._modules.items():
                if child is not None:
                    walk(f"{prefix}{name}.", child)

        walk("", self.hf)
        return found

    def fingerprint(self) -> str:
        """Which weights these are now: 16 hexadecimal digits, others inside an edit, the same again after it.

        Keys every cache, harvest, edit and table; no name or path enters. Computed once per state of the weights
        (0.1 s for 135 M of them on a CPU), known again by the version counters that torch keeps.
        """
        weights = self.parameters()
        now = {p.data_ptr(): (p, p._version) for p in weights.values()}
        if self._printed is not None and self._printed[0].keys() == now.keys():
            # by weak references: the address of a tensor that is gone may be given to another one
            if all(self._printed[0][at][0]() is p and self._printed[0][at][1] == v for at, (p, v) in now.items()):
                return self._printed[1]
        self._printed = {at: (weakref.ref(p), version) for at, (p, version) in now.items()}, fingerprint(weights)
        return self._printed[1]

    def fingerprint_with(self, instead: Mapping[str, Tensor]) -> str:
        """What `fingerprint` would be if some parameters were these tensors."""
        weights = self.parameters()
        return fingerprint(weights | {name: x.to(weights[name]) for name, x in instead.items()})

    def weights_are_back(self, parameter: nn.Parameter, state: tuple[int, int]) -> None:
        """`parameter` has again the bits that it had at `state` (its address and torch's version counter)."""
        if self._printed is None:
            return
        known = self._printed[0].get(state[0])
        if known is not None and known[0]() is parameter and known[1] == state[1]:
            self._printed[0][parameter.data_ptr()] = known[0], parameter._version

    def forget(self, parameter: nn.Parameter) -> None:
        """`parameter` goes away: its address will be used again, for other bits."""
        if self._printed is not None and parameter.data_ptr() in self._printed[0]:
            self._printed = None
