"""How the change of one weight is written down: low-rank, dense, or a few rows. Each checks its own numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core import ConceptLabError


@dataclass(frozen=True)
class LowRank:
    """The change `left @ right` of a weight `[out, in]`; `left [out, k]`, `right [k, in]`."""

    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        largest = check_numbers(self.left, "left", 2) * check_numbers(self.right, "right", 2)
        if self.left.shape[1] != self.right.shape[0]:
            raise ConceptLabError(
                f"A low-rank change needs left [out, k] and right [k, in]; got {list(self.left.shape)} and "
                f"{list(self.right.shape)}."
            )
        if largest * self.left.shape[1] > torch.finfo(self.left.dtype).max:  # only then the product can overflow
            check_numbers(self.dense(), "left @ right", 2)

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

    def __post_init__(self) -> None:
        check_numbers(self.delta, "delta")

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

    def __post_init__(self) -> None:
        check_numbers(self.delta, "delta", 2)
        for name, x, n_dim in (("index", self.index, 1), ("n_rows", self.n_rows, 0)):
            if not isinstance(x, Tensor) or x.dtype.is_floating_point or x.dtype == torch.bool or x.ndim != n_dim:
                raise ConceptLabError(f"{name} of a change of rows is a {n_dim}-d tensor of whole numbers; got {x!r}.")
        if len(self.index) != len(self.delta):
            raise ConceptLabError(
                f"A change of rows needs one row number per row; got {len(self.index)} for {len(self.delta)}."
            )
        if len(self.index):
            low, high = (int(x) for x in torch.aminmax(self.index))
            if low < 0 or high >= int(self.n_rows):
                raise ConceptLabError(
                    f"A weight with {int(self.n_rows)} rows has rows 0 to {int(self.n_rows) - 1}; row "
                    f"{low if low < 0 else high} does not exist."
                )

    @property
    def shape(self) -> tuple[int, ...]:
        return int(self.n_rows), self.delta.shape[1]

    def dense(self) -> Tensor:
        return self.delta.new_zeros(self.shape).index_add_(0, self.index.to(self.delta.device), self.delta)

    def scaled(self, factor: float) -> Rows:
        return Rows(self.index, self.delta * factor, self.n_rows)


Kind = LowRank | Dense | Rows


def check_numbers(x: object, name: str, n_dim: int | None = None) -> float:
    """The largest absolute value. Raises ConceptLabError unless `x` holds finite real numbers in `n_dim` dimensions."""
    if not isinstance(x, Tensor) or not x.dtype.is_floating_point or x.layout != torch.strided or x.is_meta:
        kind = f"{x.layout} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise ConceptLabError(f"{name} of an edit is a dense tensor of real floating-point numbers; got {kind}.")
    if n_dim is not None and x.ndim != n_dim:
        raise ConceptLabError(f"{name} of an edit has {n_dim} dimensions; got the shape {list(x.shape)}.")
    if not x.numel():
        return 0.0
    low, high = torch.aminmax(x.detach())  # one pass; a NaN comes through
    largest = float(torch.maximum(-low, high))
    if not largest < torch.inf:
        raise ConceptLabError(f"{name} of an edit holds NaN or infinite numbers; compute it again with finite ones.")
    return largest
