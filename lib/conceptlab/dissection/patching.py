"""Parts of one model in the other: activations by hooks, weights by a part of the edit (arXiv 2410.06606).

    coefficients  m_l, the input of the down projection        attention  what the attention of a layer writes
    both          coefficients and attention                   values     the down projection V_l, whose columns are the
    weights       every weight of the layer's block                       value vectors

Everything is patched at all positions, those of the examples and of the question included, as in the released code.
Layers below the first that is touched are not run again: what they write is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError, Interval
from ..edits import WeightEdit
from ..models import LanguageModel, Site, packed_hidden
from .distances import Distances, distances, share_taken_back
from .forced import Forced

if TYPE_CHECKING:
    from collections.abc import Callable

ACTIVATIONS: Mapping[str, tuple[str, ...]] = {  # part -> kinds of sites
    "coefficients": ("neurons",),
    "attention": ("attn_contribution",),
    "both": ("attn_contribution", "neurons"),
}
WEIGHTS = ("values", "weights")
TISSUES = (*ACTIVATIONS, *WEIGHTS)  # everything that can be put back


@dataclass(frozen=True)
class Traced:
    """One run over all positions, kept: activations at the sites that are patched, and logits of the answers."""

    states: Mapping[Site, Float[Tensor, "1 pos d"]]
    logits: Float[Tensor, "tokens d_vocab"]


def layer_windows(n_layers: int, width: int, step: int = 1) -> list[tuple[int, int]]:
    """(first, last) layer of every window of `width` neighbouring layers, `step` apart, the last window included."""
    if not 1 <= width <= n_layers or step < 1:
        raise ConceptLabError(f"Windows over {n_layers} layers are 1 to {n_layers} wide and 1 or more apart.")
    starts = sorted({*range(0, n_layers - width + 1, step), n_layers - width})
    return [(first, first + width - 1) for first in starts]


@torch.no_grad()
def traced(lm: LanguageModel, forced: Forced) -> Traced:
    """Run the model as it is now and keep what patching needs (0.4 MB per token for SmolLM2)."""
    kinds = ("resid_pre", "neurons", "attn_contribution")
    states: dict[Site, Tensor] = {}

    def keep(site: Site) -> Callable[[Tensor], None]:
        return lambda x: states.__setitem__(site, x.detach().clone())

    sites = [(kind, layer) for layer in range(lm.n_layers) for kind in kinds]
    with lm.intervene({site: keep(site) for site in sites}):
        return Traced(states, _answer_logits(lm, forced))


def _answer_logits(lm: LanguageModel, forced: Forced) -> Float[Tensor, "tokens d_vocab"]:
    return lm.head(packed_hidden(lm, forced.packed)[0, forced.at.to(lm.device)])


class Dissection:
    """`Dissection(lm, edit, forced)`: parts of the original in the edited model (`back`) and the reverse (`into`).

    Call it on the original, outside `applied`. `original`: a trace of it, where several edits are dissected. Every
    answer is a `Distances` from the original.
    """

    def __init__(self, lm: LanguageModel, edit: WeightEdit, forced: Forced, original: Traced | None = None):
        self.lm, self.edit, self.forced = lm, edit, forced
        self.original = traced(lm, forced) if original is None else original
        with edit.applied(lm):
            self.edited = traced(lm, forced)
        self.whole, self.lost = self._measured(self.original.logits), self._measured(self.edited.logits)
        self._found: dict[tuple[str, int, int], Distances] = {}  # of `back`

    def back(self, part: str, first: int, last: int) -> Distances:
        """The edited model with the original's part in the layers `first` to `last`."""
        return self.all_back(part, [(first, last)])[0]

    def all_back(self, part: str, windows: Sequence[tuple[int, int]]) -> list[Distances]:
        """`back` of several windows, one after the other; faster, for the edit is put on once. Nothing is run twice."""
        spans = {window: self._layers(part, *window) for window in windows}
        todo = [window for window in spans if (part, *window) not in self._found]
        if todo and part in ACTIVATIONS:
            with self.edit.applied(self.lm):
                for window in todo:
                    feed = self._feed(self.original, part, spans[window])
                    self._found[part, *window] = self._patched(self.edited, feed, spans[window][0])
        for window in todo if part in WEIGHTS else ():
            with self._without(part, spans[window]).applied(self.lm):
                self._found[part, *window] = self._patched(self.edited, {}, spans[window][0])
        return [self._found[part, *window] for window in windows]

    def shares(self, part: str, windows: Sequence[tuple[int, int]], measure: str = "kl") -> dict[str, Interval]:
        """Window ("25-29") -> share of the distance that the original's part takes back there."""
        found = self.all_back(part, windows)
        return {
            f"{first}-{last}": share_taken_back(self.whole, self.lost, x, measure)
            for (first, last), x in zip(windows, found, strict=True)
        }

    def into(self, part: str, first: int, last: int) -> Distances:
        """The original with the edited model's part in the layers `first` to `last`."""
        layers = self._layers(part, first, last)
        if part in ACTIVATIONS:
            return self._patched(self.original, self._feed(self.edited, part, layers), layers[0])
        with self._only(part, layers).applied(self.lm):
            return self._patched(self.original, {}, layers[0])

    def everything_back(self) -> Distances:
        """The edited model with every weight of the original: must be the original, to the bit."""
        with replace(self.edit, changes={}).applied(self.lm), torch.no_grad():
            return self._measured(_answer_logits(self.lm, self.forced))

    def nothing_back(self) -> Distances:
        """The edited model, run once more: must be what it was, to the bit."""
        with self.edit.applied(self.lm), torch.no_grad():
            return self._measured(_answer_logits(self.lm, self.forced))

    # ---- pieces ---------------------------------------------------------------------------------------------
    def _layers(self, part: str, first: int, last: int) -> list[int]:
        if part not in TISSUES:
            raise ConceptLabError(f"Unknown part {part!r}; parts are {', '.join(TISSUES)}.")
        first, last = self.lm.check_layer(first), self.lm.check_layer(last)
        if last < first:
            raise ConceptLabError(f"A window ends where it begins or later; got {first} to {last}.")
        return list(range(first, last + 1))

    def _feed(self, source: Traced, part: str, layers: Sequence[int]) -> dict[Site, Tensor]:
        return {(kind, layer): source.states[kind, layer] for layer in layers for kind in ACTIVATIONS[part]}

    @torch.no_grad()
    def _patched(self, host: Traced, feed: Mapping[Site, Tensor], first: int) -> Distances:
        """Run the model as it is now from layer `first` on, which reads what it read in `host`."""
        given = {**feed, ("resid_pre", first): host.states["resid_pre", first]}
        hooks = {site: partial(_instead, kept) for site, kept in given.items()}
        with self.lm.skip_before(first), self.lm.intervene(hooks):
            return self._measured(_answer_logits(self.lm, self.forced))

    def _measured(self, logits: Float[Tensor, "tokens d_vocab"]) -> Distances:
        return distances(logits, self.original.logits, self.forced.targets, self.forced.lengths)

    def _names(self, part: str, layers: Sequence[int]) -> set[str]:
        """Changed weights that belong to a part of some layers."""
        down = [self.lm.down_proj_name(layer) for layer in layers]
        if part == "values":
            return set(down) & self.edit.changes.keys()
        blocks = tuple(name.removesuffix("mlp.down_proj.weight") for name in down)
        return {name for name in self.edit.changes if name.startswith(blocks)}

    def _without(self, part: str, layers: Sequence[int]) -> WeightEdit:
        gone = self._names(part, layers)
        return replace(self.edit, changes={n: c for n, c in self.edit.changes.items() if n not in gone})

    def _only(self, part: str, layers: Sequence[int]) -> WeightEdit:
        kept = self._names(part, layers)
        return replace(self.edit, changes={n: c for n, c in self.edit.changes.items() if n in kept})


def _instead(kept: Tensor, _x: Tensor) -> Tensor:
    return kept
