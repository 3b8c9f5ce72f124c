"""The shipped tables as the columns that notebook 11 asks controls of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core import POOLED, ConceptLabError, Interval, contents, row_interval, table_path
from .pooled import DIRECT, Record


def by_concept(rows: Sequence[Mapping[str, str]], metric: str, method: str, attack: str = "") -> dict[str, Interval]:
    """Concept -> the number of this metric and method; concepts without one, and all together, are left out."""
    found = {}
    for row in rows:
        if (row["metric"], row["method"], row["attack"]) == (metric, method, attack) and row["concept"] != POOLED:
            found[row["concept"]] = row_interval(row)
    return found


def table_number(rows: Sequence[Mapping[str, str]], **where: str) -> Interval:
    """The number of the one row with these values (column=text). Raises ConceptLabError where there is none."""
    for row in rows:
        if all(row[key] == value for key, value in where.items()):
            return row_interval(row)
    said = ", ".join(f"{key} {value}" for key, value in where.items())
    raise ConceptLabError(f"The table has no row with {said}; make it anew with `conceptlab reproduce`.")


def paired_values(a: dict[str, Interval], b: dict[str, Interval]) -> Float[Tensor, "2 n"]:
    """The values of both for the concepts that both have, in the order of the first."""
    both = [name for name in a if name in b]
    return torch.tensor([[x[name].value for name in both] for x in (a, b)], dtype=torch.float64)


class Relearnt(NamedTuple):
    """Margins of known test questions (nats) before the edit, after it, and after relearning; whose they are."""

    original: Float[Tensor, " n"]
    erased: Float[Tensor, " n"]
    after: Float[Tensor, " n"]
    concept: Int[Tensor, " n"]
    names: tuple[str, ...]


def relearnt(model: str, method: str, attack: str = "relearning") -> Relearnt:
    """Question by question from the records of the lab's table, at the largest number of steps; may be empty."""
    records = contents(table_path("lab", model)).records
    columns: list[list[Tensor]] = [[], [], [], []]
    names: list[str] = []
    for key in dict.fromkeys(key[0] for key in records):
        found = [_read(records, key, m, a) for m, a in (("original", DIRECT), (method, DIRECT), (method, attack))]
        before, erased, after = found
        if key == POOLED or before is None or erased is None or after is None:
            continue
        asked = range(len(after.values[-1])) if after.asked is None else after.asked
        parts = [torch.tensor([x.values[0][i] for i in asked]) for x in (before, erased)]
        parts.append(torch.tensor(after.values[-1]))
        for place, part in zip(columns, [*parts, torch.full((len(parts[0]),), len(names))], strict=True):
            place.append(part)
        names.append(key)
    a, b, c, index = (torch.cat(part) if part else torch.empty(0) for part in columns)
    return Relearnt(a, b, c, index.long(), tuple(names))


def _read(records: dict, concept: str, method: str, attack: str) -> Record | None:
    wanted = (concept, method, attack, "cost")
    return next((Record.read(record) for key, record in records.items() if key[:4] == wanted), None)
