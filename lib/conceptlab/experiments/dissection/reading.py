"""The table of dissections as a notebook reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...core import Contents, Interval, contents, row_interval, table_path

Shares = dict[str, Interval]  # "25-29" -> share


class DissectionTable:
    """`DissectionTable("smollm2-135m")`: numbers of the table in data/results, by concept, edit, way and layers."""

    def __init__(self, model: str, seed: int = 0, found: Contents | None = None):
        self._found = contents(table_path("dissection", model)) if found is None else found
        self._seed = str(seed)
        self._rows = {
            (r["concept"], r["method"], r["attack"], r["budget"], r["metric"]): row_interval(r)
            for r in self._found.rows
            if r["seed"] == self._seed
        }

    def __contains__(self, key: tuple[str, str, str, str, str]) -> bool:
        return key in self._rows

    def get(self, concept: str, edit: str, way: str, layers: str = "", metric: str = "kl") -> Interval:
        """One number; not measurable where the table has none."""
        missing = Interval.unmeasured("the table has no such number")
        return self._rows.get((concept, edit, way, layers, metric), missing)

    def shares(self, concept: str, edit: str, way: str, metric: str = "kl") -> Shares:
        """Layers -> share, windows first, then the last layer and all layers; cumulative ones are left out."""
        there = [k[3] for k in self._rows if k[:3] == (concept, edit, way) and k[4] == metric]
        spans = {name: tuple(map(int, name.split("-"))) for name in there}
        if not spans:
            return {}
        last = max(b for _, b in spans.values())
        width = Counter(b - a + 1 for a, b in sorted(spans.values())).most_common(1)[0][0]  # cumulative ones differ
        windows = sorted((a, b) for a, b in spans.values() if b - a + 1 == width)
        names = [f"{a}-{b}" for a, b in [*windows, (last, last), (0, last)]]
        return {n: self.get(concept, edit, way, n, metric) for n in dict.fromkeys(names) if n in spans}

    def cumulative(self, concept: str, edit: str, way: str, metric: str = "kl") -> Shares:
        """From a layer to the end."""
        there = [k[3] for k in self._rows if k[:3] == (concept, edit, way) and k[4] == metric]
        last = max((int(n.split("-")[1]) for n in there), default=0)
        firsts = sorted(int(n.split("-")[0]) for n in there if n.endswith(f"-{last}"))
        return {f"{a}-{last}": self.get(concept, edit, way, f"{a}-{last}", metric) for a in firsts}

    def concepts(self) -> list[str]:
        """Dissected concepts, in the order of the table."""
        return list(dict.fromkeys(k[0] for k in self._rows if k[0] != "all"))

    def moves(self, concept: str, edit: str) -> Float[np.ndarray, "layers 3"]:
        """Relative change per layer of attention, the MLP's input side, and value vectors."""
        kinds, n = ("attention", "mlp_in", "values"), 0
        while (concept, edit, "moves", str(n), "values") in self._rows:
            n += 1
        return np.array([[self.get(concept, edit, "moves", str(i), k).value for k in kinds] for i in range(n)])

    def collateral(self, concept: str, edits: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """Nats lost by known questions of other concepts: `[edits, concepts]`, and their names."""
        names = list(dict.fromkeys(k[3] for k in self._rows if k[0] == concept and k[2] == "collateral"))
        rows = [[self.get(concept, e, "collateral", n, "gold_lost").value for n in names] for e in edits]
        return np.array(rows), names

    def questions(
        self, concept: str, edit: str, way: str, layers: str, measure: str = "kl"
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Per question the distance of the treated model, and of the edited one."""
        protocol = way.split("/")[0]
        treated: Mapping = self._found.records[concept, edit, way, layers, self._seed]
        damage: Mapping = self._found.records[concept, edit, f"{protocol}/damage", "", self._seed]
        return torch.tensor(treated[measure]), torch.tensor(damage["lost"][measure])
