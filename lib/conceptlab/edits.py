"""WeightEdit: a set of changes to named weights that can be applied, reverted bit-exactly, saved and composed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from .cache import ConceptLabError, atomic_path
from .models import LanguageModel


@dataclass(frozen=True)
class LowRank:
    """The change `left @ right` of a weight `[out, in]`; `left [out, k]`, `right [k, in]`."""

    left: Tensor
    right: Tensor

    def dense(self) -> Tensor:
        return self.left @ self.right


@dataclass(frozen=True)
class Dense:
    """The change `delta` of a weight of the same shape."""

    delta: Tensor

    def dense(self) -> Tensor:
        return self.delta


@dataclass(frozen=True)
class WeightEdit:
    """Changes of named parameters of one model (names as in `lm.hf.named_parameters()`).

    `with edit.applied(lm): ...` adds the changes; on leaving, also by an exception, every weight is bit-identical
    to what it was. `a + b` does both (changes of the same weight add up).
    """

    model: str  # the name of the model it was made for
    changes: dict[str, LowRank | Dense]
    info: dict = field(default_factory=dict)  # provenance, JSON-able

    @classmethod
    def between(cls, lm: LanguageModel, before: dict[str, Tensor], info: dict | None = None) -> WeightEdit:
        """The edit that leads from saved weights (`name -> tensor`) to the model's present ones."""
        now = dict(lm.hf.named_parameters())
        return cls(lm.name, {n: Dense((now[n].detach() - old).clone()) for n, old in before.items()}, info or {})

    @contextmanager
    def applied(self, lm: LanguageModel) -> Iterator[LanguageModel]:
        """Apply inside the block, restore the saved originals afterwards."""
        parameters = self._parameters(lm)
        originals = {name: p.detach().clone() for name, p in parameters.items()}
        try:
            with torch.no_grad():
                for name, change in self.changes.items():
                    parameters[name].add_(change.dense().to(parameters[name]))
            yield lm
        finally:
            with torch.no_grad():
                for name, p in parameters.items():
                    p.copy_(originals[name])

    def _parameters(self, lm: LanguageModel) -> dict[str, Tensor]:
        named = dict(lm.hf.named_parameters())
        for name, change in self.changes.items():
            shape = (
                tuple(change.dense().shape) if isinstance(change, Dense) else (len(change.left), change.right.shape[1])
            )
            if name not in named or tuple(named[name].shape) != shape:
                raise ConceptLabError(
                    f"This edit was made for {self.model} and changes {name} {list(shape)}, which {lm.name} does not "
                    "have in that shape; load the model it was made for."
                )
        return {name: named[name] for name in self.changes}

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
            else:
                changes[name] = Dense(mine.dense() + change.dense())
        return WeightEdit(self.model, changes, {"parts": [self.info, other.info]})

    def __mul__(self, factor: float) -> WeightEdit:
        scaled = {
            n: LowRank(c.left * factor, c.right) if isinstance(c, LowRank) else Dense(c.delta * factor)
            for n, c in self.changes.items()
        }
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
            changes = {n: Dense(**p) if "delta" in p else LowRank(**p) for n, p in parts.items()}
            return cls(meta["model"], changes, json.loads(meta["info"]))
        except FileNotFoundError:
            raise ConceptLabError(f"There is no file {path}; give the path that WeightEdit.save wrote.") from None
        except Exception as error:
            raise ConceptLabError(
                f"{path} is not a saved WeightEdit ({type(error).__name__}); save it again."
            ) from None

    def report(self, lm: LanguageModel) -> dict[str, float]:
        """What the edit touches: weights, share of value vectors changed, norms.

        Keys: n_weights, vectors_touched (share of the columns of the changed matrices that change at all),
        norm (Frobenius norm of all changes), relative_norm (the same over the norm of the changed weights).
        """
        named = self._parameters(lm)
        touched = columns = delta_sq = weight_sq = 0.0
        for name, change in self.changes.items():
            delta = change.dense().float()
            if delta.ndim == 2:  # gains and biases have no value vectors
                touched += float((delta.abs().amax(0) > 0).sum())
                columns += delta.shape[1]
            delta_sq += float(delta.square().sum())
            weight_sq += float(named[name].float().square().sum())
        return {
            "n_weights": float(len(self.changes)),
            "vectors_touched": touched / max(columns, 1),
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


def random_like(edit: WeightEdit, seed: int = 0) -> WeightEdit:
    """A control: Gaussian changes of the same weights with the same Frobenius norm each, on the same columns."""
    generator = torch.Generator().manual_seed(seed)
    changes: dict[str, LowRank | Dense] = {}
    for name, change in edit.changes.items():
        delta = change.dense()
        noise = torch.randn(delta.shape, generator=generator).to(delta) * (delta.abs().amax(0, keepdim=True) > 0)
        changes[name] = Dense(noise * (delta.norm() / noise.norm().clamp_min(1e-30)))
    return WeightEdit(edit.model, changes, {"control": "random edit of equal norm", "seed": seed})
