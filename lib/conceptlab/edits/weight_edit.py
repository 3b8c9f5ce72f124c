"""WeightEdit: a set of changes to named weights that can be applied, reverted bit-exactly, saved and composed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core import ConceptLabError, atomic_path
from ..models import Change, LanguageModel
from .kinds import Dense, Kind, LowRank, Rows, check_numbers
from .storage import as_json, check_export, read_edit, write_edit

INPUT = ":input"  # after the embedding's name: where the unembedding shares its weights, leave the unembedding alone
HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class WeightEdit:
    """Changes of named parameters of one model (names as in `lm.parameters()`).

    `with edit.applied(lm): ...` adds the changes; on leaving, also by an exception, every weight is bit-identical
    to what it was. `a + b` does both (changes of the same weight add up, on the device of `a`). A change under the
    embedding's name followed by `INPUT` spares the unembedding: where a model shares the two, they are untied inside
    the block.
    Raises ConceptLabError for values that are no change of a weight.
    """

    model: str  # the name of the model it was made for
    changes: Mapping[str, Kind]
    info: dict = field(default_factory=dict)  # provenance, JSON-able
    # `lm.changes.base()` of the model it was made for; None: unknown (made by hand, or saved before there were any)
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        for name, change in self.changes.items():
            if not isinstance(name, str) or not isinstance(change, Kind):
                raise ConceptLabError(
                    f"An edit holds a LowRank, Dense or Rows under each weight's name; got {type(change).__name__} "
                    f"under {name!r}."
                )

    @classmethod
    def of(cls, lm: LanguageModel, changes: Mapping[str, Kind], info: dict | None = None) -> WeightEdit:
        """An edit of `lm`, which it knows again by the weights below everything that is on the model now."""
        return cls(lm.name, changes, info or {}, lm.changes.base())

    @classmethod
    def between(cls, lm: LanguageModel, before: dict[str, Tensor], info: dict | None = None) -> WeightEdit:
        """The edit that leads from saved weights (`name -> tensor`) to the model's present ones.

        It is an edit of the model with the saved weights; inside a block that changes weights, of what is below it.
        Raises ConceptLabError for weights that the model does not have in that shape.
        """
        now = lm.parameters()
        for name, old in before.items():
            _check_weight(lm, name, tuple(old.shape), f"The saved weights hold {name}")
        wide = {n: (_wide(now[n].detach()), _wide(old)) for n, old in before.items()}
        changes: dict[str, Kind] = {n: Dense(new - old.to(new)) for n, (new, old) in wide.items()}
        inside = any(change.weights for change in lm.changes)
        base = lm.changes.base() if inside else lm.fingerprint_with(before)
        return cls(lm.name, changes, info or {}, base)

    def applied(self, lm: LanguageModel, force: bool = False) -> AbstractContextManager[LanguageModel]:
        """Apply inside the block, restore the saved originals afterwards.

        Raises ConceptLabError for a model with other weights than those it was made for, unless `force` says to add
        the changes all the same; names and shapes of weights must fit in any case. What is on the model already does
        not count: an edit knows the weights below it.
        """
        return Change(lm, f"an edit ({self.info.get('method', 'by hand')})", partial(self._begin, lm, force))

    def _begin(self, lm: LanguageModel, force: bool, change: Change) -> None:
        if not force:
            self.check_made_for(lm)
        parameters = self._parameters(lm)
        for p in {id(p): p for p in parameters.values()}.values():
            change.keep(p)
        alone = [name for name in self.changes if name.endswith(INPUT)]
        self._add(lm, parameters, [name for name in self.changes if name not in alone])
        if alone:
            lm.untie(change)  # by now the unembedding has what is meant for both
            self._add(lm, parameters, alone)

    @torch.no_grad()
    def _add(self, lm: LanguageModel, parameters: Mapping[str, Tensor], names: list[str]) -> None:
        for name in names:
            change, p = self.changes[name], parameters[name]
            if p.dtype in HALF:
                new = _moved(p, change)
                check_numbers(new, f"{name} plus its change, in {lm.dtype},")
                p.copy_(new)
            elif isinstance(change, Rows):
                p.index_add_(0, change.index.to(p.device), change.delta.to(p))
            else:
                p.add_(change.dense().to(p))

    def check_made_for(self, lm: LanguageModel) -> None:
        """Raise ConceptLabError unless this edit was made for the weights of `lm` (without it: for its name)."""
        if self.fingerprint is None:
            if self.model != lm.name:
                raise ConceptLabError(
                    f"This edit was made for {self.model} and this is {lm.name}; load the model it was made for, or "
                    "say applied(lm, force=True) to add its changes all the same."
                )
        elif self.fingerprint != (here := lm.changes.base()):
            raise ConceptLabError(
                f"This edit was made for {self.model} with the weights {self.fingerprint}, and {lm.name} has {here} "
                "(another model, dtype or state, or one that the edit is in already); load the model it was made for, "
                "or say applied(lm, force=True) to add its changes all the same."
            )

    def _parameters(self, lm: LanguageModel) -> dict[str, nn.Parameter]:
        """Key of a change -> the parameter it changes."""
        named = lm.parameters()
        for key, change in self.changes.items():
            name = key.removesuffix(INPUT)
            if name not in named or tuple(named[name].shape) != change.shape:
                _check_weight(lm, name, change.shape, f"This edit was made for {self.model} and changes {name}")
            if name != key and name != lm.embedding_name():
                raise ConceptLabError(f"Only the embedding can be changed on its input side; {name} is none.")
        return {key: named[key.removesuffix(INPUT)] for key in self.changes}

    def __add__(self, other: WeightEdit) -> WeightEdit:
        known = self.fingerprint is not None and other.fingerprint is not None
        if self.fingerprint != other.fingerprint if known else self.model != other.model:
            weights = f" (weights {self.fingerprint} and {other.fingerprint})" if known else ""
            raise ConceptLabError(f"An edit of {self.model} cannot be added to an edit of {other.model}{weights}.")
        changes = dict(self.changes)
        for name, change in other.changes.items():
            mine = changes.get(name)
            if mine is not None and mine.shape != change.shape:
                raise ConceptLabError(f"The edits change {name} as {list(mine.shape)} and as {list(change.shape)}.")
            if mine is None:
                changes[name] = change
            elif isinstance(mine, LowRank) and isinstance(change, LowRank):
                left, right = change.left.to(mine.left.device), change.right.to(mine.right.device)
                changes[name] = LowRank(torch.cat([mine.left, left], 1), torch.cat([mine.right, right]))
            elif isinstance(mine, Rows) and isinstance(change, Rows):
                index = torch.cat([mine.index, change.index.to(mine.index.device)])
                delta = torch.cat([mine.delta, change.delta.to(mine.delta.device)])
                changes[name] = Rows(index, delta, mine.n_rows)
            else:
                here = mine.dense()
                changes[name] = Dense(here + change.dense().to(here.device))
        return WeightEdit(
            self.model, changes, {"parts": [self.info, other.info]}, self.fingerprint or other.fingerprint
        )

    def __mul__(self, factor: float) -> WeightEdit:
        if not math.isfinite(factor):
            raise ConceptLabError(f"An edit is scaled by a finite number; got {factor}.")
        scaled = {name: change.scaled(factor) for name, change in self.changes.items()}
        return replace(self, changes=scaled, info=self.info | {"factor": self.info.get("factor", 1) * factor})

    def save(self, path: str | Path) -> None:
        """Write one safetensors file (atomic). Raises ConceptLabError where `path` is no place for a file."""
        write_edit(path, self.model, self.changes, self.info, self.fingerprint)

    @classmethod
    def load(cls, path: str | Path) -> WeightEdit:
        """Read what `save` wrote. Raises ConceptLabError when the file is something else or holds no finite numbers."""
        return cls(*read_edit(path))

    def export(self, lm: LanguageModel, folder: str | Path) -> None:
        """Write the edited model and its tokenizer as a folder that plain transformers loads, without this library.

        `edit.json` in it says what was done. `lm` is left as it was. Raises ConceptLabError for a folder that is there
        and holds anything but such a model, and while a change is on the model.
        """
        lm.check_unchanged("exported")
        folder = check_export(folder)
        note = {"model": self.model, "fingerprint": self.fingerprint, "info": self.info}
        text = as_json(note, indent=1) + "\n"
        with self.applied(lm), atomic_path(folder) as temporary:
            lm.save(temporary, edited=True)
            (temporary / "edit.json").write_text(text, encoding="utf-8")

    @torch.no_grad()
    def report(self, lm: LanguageModel) -> dict[str, float]:
        """What the edit changes in the weights as they are stored, rounding to the model's dtype included.

        Keys: n_weights, vectors_touched (share of the columns of the changed matrices that change at all),
        rows_touched (number of rows of the embedding that change), norm (Frobenius norm of all changes),
        relative_norm (the same over the norm of the changed weights). Warns when rounding leaves nothing of it.
        """
        named = self._parameters(lm)
        touched = columns = rows = delta_sq = 0.0
        for key, change in self.changes.items():
            delta = _moved(named[key], change).float() - named[key].float()
            if isinstance(change, Rows):
                rows += float((delta.abs().amax(1) > 0).sum())
            elif delta.ndim == 2:  # gains and biases have no value vectors
                touched += float((delta.abs().amax(0) > 0).sum())
                columns += delta.shape[1]
            delta_sq += float(delta.square().sum())
        weight_sq = sum(float(p.float().square().sum()) for p in {id(p): p for p in named.values()}.values())
        if not delta_sq and any(bool(change.dense().any()) for change in self.changes.values()):
            dtype = str(lm.dtype).removeprefix("torch.")
            warnings.warn(
                f"This edit changes nothing in {dtype}: every change is lost in rounding; make it stronger, or load "
                f"{lm.name} in float32.",
                stacklevel=2,
            )
        return {
            "n_weights": float(len(self.changes)),
            "vectors_touched": touched / max(columns, 1),
            "rows_touched": rows,
            "norm": delta_sq**0.5,
            "relative_norm": (delta_sq / weight_sq) ** 0.5 if weight_sq else 0.0,
        }


def _wide(x: Tensor) -> Tensor:
    """In at least float32, in which a difference of two half-precision numbers is kept."""
    return x.float() if x.dtype in HALF else x


def _moved(p: Tensor, change: Kind) -> Tensor:
    """A weight with its change, added in float32 where the weight is in half precision, and rounded once."""
    return (_wide(p) + change.dense().to(_wide(p))).to(p.dtype)


def _check_weight(lm: LanguageModel, name: str, shape: tuple[int, ...], what: str) -> None:
    named = lm.parameters()
    if name not in named and lm.is_tied and shape == tuple(lm.embedding().shape):
        raise ConceptLabError(
            f"{what}, which {lm.name} shares with its embedding; give it as {lm.embedding_name()!r}, the name of both."
        )
    if name not in named or tuple(named[name].shape) != shape:
        raise ConceptLabError(
            f"{what} {list(shape)}, which {lm.name} does not have in that shape; load the model it was made for."
        )


def value_edit(
    lm: LanguageModel,
    layer: int,
    neurons: list[int],
    delta: Float[Tensor, "n d_model"],
    info: dict | None = None,
) -> WeightEdit:
    """The edit that adds `delta[i]` to the value vector of `neurons[i]` (in the residual stream's units).

    Exact except in dimensions that the layer cannot write (gain 0 after the MLP), which stay 0.
    Raises ConceptLabError for a neuron or layer that does not exist.
    """
    if tuple(delta.shape) != (len(neurons), lm.d_model):
        raise ConceptLabError(
            f"{len(neurons)} value vectors of {lm.name} change by [{len(neurons)}, {lm.d_model}] numbers; got "
            f"{list(delta.shape)}."
        )
    for neuron in neurons:
        if not 0 <= neuron < lm.d_mlp:
            raise ConceptLabError(f"{lm.name} has neurons 0 to {lm.d_mlp - 1}; neuron {neuron} does not exist.")
    right = torch.zeros(len(neurons), lm.d_mlp, device=delta.device, dtype=delta.dtype)
    right[torch.arange(len(neurons)), torch.tensor(neurons)] = 1.0
    left = lm.weight_delta(layer, delta).contiguous()
    return WeightEdit.of(lm, {lm.down_proj_name(layer): LowRank(left, right)}, info)
