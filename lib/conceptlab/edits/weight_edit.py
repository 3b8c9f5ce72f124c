"""WeightEdit: a set of changes to named weights that can be applied, reverted bit-exactly, saved and composed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..core import ConceptLabError, atomic_path
from ..models import LanguageModel

INPUT = ":input"  # after the embedding's name: where the unembedding shares its weights, leave the unembedding alone


@dataclass(frozen=True)
class LowRank:
    """The change `left @ right` of a weight `[out, in]`; `left [out, k]`, `right [k, in]`."""

    left: Tensor
    right: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.left), self.right.shape[1]

    def dense(self) -> Tensor:
        return self.left @ self.right

    def scaled(self, factor: float) -> LowRank:
        return LowRank(self.left * factor, self.right)


@dataclass(frozen=True)
class Dense:
    """The change `delta` of a weight of the same shape."""

    delta: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.delta.shape)

    def dense(self) -> Tensor:
        return self.delta

    def scaled(self, factor: float) -> Dense:
        return Dense(self.delta * factor)


@dataclass(frozen=True)
class Rows:
    """The change of a few rows of a large weight `[out, in]`: row `index[i]` by `delta[i]`; repeated rows add up."""

    index: Int[Tensor, " n"]
    delta: Float[Tensor, "n in"]
    n_rows: Int[Tensor, ""]  # `out`

    @property
    def shape(self) -> tuple[int, ...]:
        return int(self.n_rows), self.delta.shape[1]

    def dense(self) -> Tensor:
        return self.delta.new_zeros(self.shape).index_add_(0, self.index.to(self.delta.device), self.delta)

    def scaled(self, factor: float) -> Rows:
        return Rows(self.index, self.delta * factor, self.n_rows)


Change = LowRank | Dense | Rows


@dataclass(frozen=True)
class WeightEdit:
    """Changes of named parameters of one model (names as in `lm.parameters()`).

    `with edit.applied(lm): ...` adds the changes; on leaving, also by an exception, every weight is bit-identical
    to what it was. `a + b` does both (changes of the same weight add up). A change under the embedding's name
    followed by `INPUT` spares the unembedding: where a model shares the two, they are untied inside the block.
    """

    model: str  # the name of the model it was made for
    changes: dict[str, Change]
    info: dict = field(default_factory=dict)  # provenance, JSON-able

    @classmethod
    def between(cls, lm: LanguageModel, before: dict[str, Tensor], info: dict | None = None) -> WeightEdit:
        """The edit that leads from saved weights (`name -> tensor`) to the model's present ones."""
        now = lm.parameters()
        return cls(lm.name, {n: Dense((now[n].detach() - old).clone()) for n, old in before.items()}, info or {})

    @contextmanager
    def applied(self, lm: LanguageModel) -> Iterator[LanguageModel]:
        """Apply inside the block, restore the saved originals afterwards."""
        parameters = self._parameters(lm)
        originals = [(p, p.detach().clone()) for p in {id(p): p for p in parameters.values()}.values()]
        alone = [name for name in self.changes if name.endswith(INPUT)]
        try:
            self._add(parameters, [name for name in self.changes if name not in alone])
            with lm.untied() if alone else nullcontext():  # by now the unembedding has what is meant for both
                self._add(parameters, alone)
                yield lm
        finally:
            with torch.no_grad():
                for p, original in originals:
                    p.copy_(original)

    @torch.no_grad()
    def _add(self, parameters: dict[str, Tensor], names: list[str]) -> None:
        for name in names:
            change, p = self.changes[name], parameters[name]
            if isinstance(change, Rows):
                p.index_add_(0, change.index.to(p.device), change.delta.to(p))
            else:
                p.add_(change.dense().to(p))

    def _parameters(self, lm: LanguageModel) -> dict[str, Tensor]:
        """Key of a change -> the parameter it changes."""
        named = lm.parameters()
        found = {}
        for key, change in self.changes.items():
            name = key.removesuffix(INPUT)
            if name not in named or tuple(named[name].shape) != change.shape:
                raise ConceptLabError(
                    f"This edit was made for {self.model} and changes {name} {list(change.shape)}, which {lm.name} "
                    "does not have in that shape; load the model it was made for."
                )
            if name != key and name != lm.embedding_name():
                raise ConceptLabError(f"Only the embedding can be changed on its input side; {name} is none.")
            found[key] = named[name]
        return found

    def __add__(self, other: WeightEdit) -> WeightEdit:
        if self.model != other.model:
            raise ConceptLabError(f"An edit of {self.model} cannot be added to an edit of {other.model}.")
        changes = dict(self.changes)
        for name, change in other.changes.items():
            mine = changes.get(name)
            if mine is None:
                changes[name] = change
            elif isinstance(mine, LowRank) and isinstance(change, LowRank):
                changes[name] = LowRank(torch.cat([mine.left, change.left], 1), torch.cat([mine.right, change.right]))
            elif isinstance(mine, Rows) and isinstance(change, Rows):
                index = torch.cat([mine.index, change.index])
                changes[name] = Rows(index, torch.cat([mine.delta, change.delta]), mine.n_rows)
            else:
                changes[name] = Dense(mine.dense() + change.dense())
        return WeightEdit(self.model, changes, {"parts": [self.info, other.info]})

    def __mul__(self, factor: float) -> WeightEdit:
        scaled = {name: change.scaled(factor) for name, change in self.changes.items()}
        return WeightEdit(self.model, scaled, self.info | {"factor": factor})

    def save(self, path: str | Path) -> None:
        """Write one safetensors file (atomic)."""
        tensors: dict[str, Tensor] = {}
        for name, change in self.changes.items():
            for part, tensor in vars(change).items():
                tensors[f"{name}|{part}"] = tensor.detach().cpu().contiguous()
        meta = {"model": self.model, "info": json.dumps(self.info)}
        with atomic_path(Path(path)) as temporary:
            save_file(tensors, temporary, metadata=meta)

    @classmethod
    def load(cls, path: str | Path) -> WeightEdit:
        """Read what `save` wrote. Raises ConceptLabError when the file is something else."""
        try:
            with safe_open(str(path), "pt") as file:
                meta, tensors = file.metadata() or {}, {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            parts: dict[str, dict[str, Tensor]] = {}
            for key, tensor in tensors.items():
                name, part = key.split("|")
                parts.setdefault(name, {})[part] = tensor
            kinds = {frozenset(kind.__dataclass_fields__): kind for kind in (LowRank, Dense, Rows)}
            changes = {name: kinds[frozenset(part)](**part) for name, part in parts.items()}
            return cls(meta["model"], changes, json.loads(meta["info"]))
        except FileNotFoundError:
            raise ConceptLabError(f"There is no file {path}; give the path that WeightEdit.save wrote.") from None
        except Exception as error:
            raise ConceptLabError(
                f"{path} is not a saved WeightEdit ({type(error).__name__}); save it again."
            ) from None

    def export(self, lm: LanguageModel, folder: str | Path) -> None:
        """Write the edited model and its tokenizer as a folder that plain transformers loads, without this library.

        `edit.json` in it says what was done. `lm` is left as it was. Raises ConceptLabError for a folder that is there
        and holds anything but such a model.
        """
        folder = Path(folder)
        if folder.exists() and not (folder / "edit.json").is_file():
            raise ConceptLabError(f"{folder} is there already and no exported edit; give the name of a new folder.")
        with self.applied(lm), atomic_path(folder) as temporary:
            lm.save(temporary)
            (temporary / "edit.json").write_text(json.dumps({"model": self.model, "info": self.info}, indent=1) + "\n")

    def report(self, lm: LanguageModel) -> dict[str, float]:
        """What the edit touches: weights, share of value vectors changed, norms.

        Keys: n_weights, vectors_touched (share of the columns of the changed matrices that change at all),
        rows_touched (number of rows of the embedding that change), norm (Frobenius norm of all changes),
        relative_norm (the same over the norm of the changed weights).
        """
        named = self._parameters(lm)
        touched = columns = rows = delta_sq = 0.0
        for change in self.changes.values():
            delta = change.dense().float()
            if isinstance(change, Rows):
                rows += float((delta.abs().amax(1) > 0).sum())
            elif delta.ndim == 2:  # gains and biases have no value vectors
                touched += float((delta.abs().amax(0) > 0).sum())
                columns += delta.shape[1]
            delta_sq += float(delta.square().sum())
        weight_sq = sum(float(p.float().square().sum()) for p in {id(p): p for p in named.values()}.values())
        return {
            "n_weights": float(len(self.changes)),
            "vectors_touched": touched / max(columns, 1),
            "rows_touched": rows,
            "norm": delta_sq**0.5,
            "relative_norm": (delta_sq / weight_sq) ** 0.5 if weight_sq else 0.0,
        }


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
    for neuron in neurons:
        if not 0 <= neuron < lm.d_mlp:
            raise ConceptLabError(f"{lm.name} has neurons 0 to {lm.d_mlp - 1}; neuron {neuron} does not exist.")
    right = torch.zeros(len(neurons), lm.d_mlp, device=delta.device, dtype=delta.dtype)
    right[torch.arange(len(neurons)), torch.tensor(neurons)] = 1.0
    left = lm.weight_delta(layer, delta).contiguous()
    return WeightEdit(lm.name, {lm.down_proj_name(layer): LowRank(left, right)}, info or {})
