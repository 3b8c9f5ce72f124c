"""The shipped tables as the columns that notebook 11 asks controls of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core import ConceptLabError, Interval, row_interval
from .lab_view import LabView
from .pooled import columns_of


def table_number(rows: Sequence[Mapping[str, str]], **where: str) -> Interval:
    """The number of the one row with these values (column=text). Raises ConceptLabError where there is none."""
    for row in rows:
        if all(row[key] == value for key, value in where.items()):
            return row_interval(row)
    said = ", ".join(f"{key} {value}" for key, value in where.items())
    raise ConceptLabError(f"The table has no row with {said}; make it anew with `conceptlab reproduce`.")


class Relearnt(NamedTuple):
    """Margins of known test questions (nats) before the edit, after it, and after relearning; whose they are."""

    original: Float[Tensor, " n"]
    erased: Float[Tensor, " n"]
    after: Float[Tensor, " n"]
    concept: Int[Tensor, " n"]
    names: tuple[str, ...]


def relearnt(model: str, method: str, attack: str = "relearning") -> Relearnt:
    """Question by question from the records of the lab's table, at the largest number of steps; may be empty."""
    view = LabView.read(model)
    found = {concept: columns_of(view.record, concept, method, attack) for concept in view.concepts}
    rows = {concept: list(columns.values())[-1] for concept, columns in found.items() if columns}
    if not rows:
        none = torch.empty(0)
        return Relearnt(none, none, none, none.long(), ())
    index = [torch.full((len(row[0]),), i) for i, row in enumerate(rows.values())]
    before, erased, after = (torch.cat(column) for column in zip(*rows.values(), strict=True))
    return Relearnt(before, erased, after, torch.cat(index), tuple(rows))
