"""An edit as a few numbers that rounding hardly moves: its norm per weight, and products with fixed random vectors."""

import torch


def signature(edit) -> dict[str, list[float]]:
    found = {}
    for name, change in sorted(edit.changes.items()):
        delta = change.dense().double()
        g = torch.Generator().manual_seed(delta.shape[0] + delta.shape[1])
        left = torch.randn(3, delta.shape[0], generator=g, dtype=torch.float64) / delta.shape[0] ** 0.5
        right = torch.randn(3, delta.shape[1], generator=g, dtype=torch.float64) / delta.shape[1] ** 0.5
        found[name] = [float(delta.norm()), *torch.einsum("ki,ij,kj->k", left, delta, right).tolist()]
    return found
