"""Other modules in the place of a model's linear layers, for a while."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from .changes import Change
from .language_model import LanguageModel


def layers_replaced(lm: LanguageModel, names: Sequence[str], make: Callable[[nn.Module], nn.Module]) -> Change:
    """Inside the block `make(layer)` stands in the place of each layer; afterwards the layers are back, in any case.

    `names`: of the layers' weights, as in `lm.parameters()`. Gives the list of new modules. Other code asks a layer for
    its weight, so each new module shows that of the old layer.
    """

    def begin(change: Change) -> list[nn.Module]:
        made = []
        for name in names:
            parent, _, leaf = name.removesuffix(".weight").rpartition(".")
            place, layer = lm.hf.get_submodule(parent), lm.linear(name)
            made.append(make(layer))
            object.__setattr__(made[-1], "weight", layer.weight)  # shown, not owned: no parameter of the new module
            change.then(partial(setattr, place, leaf, layer))
            setattr(place, leaf, made[-1])
        return made

    return Change(lm, "replaced layers", begin, weights=False)
