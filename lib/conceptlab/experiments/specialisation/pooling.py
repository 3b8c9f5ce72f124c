"""Over concepts: means, the share of concepts whose interval excludes 0, frequency, differences between arms."""

from __future__ import annotations

import torch

from ...core import Cell, Interval, Store, correlation_interval, mean_interval, proportion, row_interval
from .bench import MAIN


def pool_concepts(store: Store) -> None:
    """Means over concepts, the share of concepts whose interval excludes 0, frequency, and the teaching contrasts."""
    found: dict[tuple[str, ...], dict[str, Interval]] = {}
    for row in store.rows:
        key = (row["method"], row["attack"], row["budget"])
        found.setdefault((*key, row["metric"]), {})[f"{row['concept']}/{row['seed']}"] = row_interval(row)
    pooled: dict[tuple[str, ...], dict[str, Interval]] = {}
    for (method, attack, budget, metric), values in found.items():
        if len(values) > 2 and method != "known":
            numbers = pooled.setdefault((method, attack, budget), {})
            numbers[metric] = mean_interval([x.value for x in values.values()])
            if method.startswith("own-"):
                numbers[f"{metric}_sure"] = proportion(sum(x.low > 0 for x in values.values()), len(values), "concepts")
    for (method, attack, budget, metric), values in found.items():
        if attack == "teaching" and method != "own":
            mine = found.get(("own", attack, budget, metric), {})
            both = [mine[k].value - values[k].value for k in values if k in mine]
            if len(both) > 2:
                pooled.setdefault((f"own-{method}", attack, budget), {})[metric] = mean_interval(both)
    store.add_all({Cell("all", m, a, b): x for (m, a, b), x in pooled.items() if x})
    often, gaps = found.get(("known", "", "", "per_million"), {}), found.get(("own", "", f"{MAIN:g}", "gap"), {})
    both_known = [k for k in often if k in gaps]
    if len(both_known) > 3:
        x, y = (torch.tensor([d[k].value for k in both_known]) for d in (often, gaps))
        a, b = (v.argsort().argsort().double() for v in (x, y))
        rho = correlation_interval(a, b, torch.arange(len(x)), seed=store.seed)
        store.add(Cell("all", "frequency"), {"spearman_gap": rho})
