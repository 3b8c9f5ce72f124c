"""Semi-nonnegative factors of neuron activations as the disentangler, and PISCES' edit of them.

    A ~ Y Z,  Y >= 0 [tokens, k],  Z [k, d_mlp] free        (semi-NMF: Ding, Li and Jordan 2010)

A factor `z` is a set of neurons that fire together with these signs; it writes `d = z W_down`. The edit is PISCES' with
the factor's neurons in place of a dictionary's: in the rows `J = {j: |z_j| > tau max |z|}`,

    w_j <- w_j - mu M sign(z_j) d / |d|,   M = max over j of |w_j . d| / |d|

so that the factor, when it fires, writes `-mu M sum |n_j| d` more. Factors are chosen by how much more they fire
on the concept than on anything else. MLP features by semi-NMF: the SNMF baseline of EMBER (arXiv 2606.03695).
Its null is `snmf_permuted`: the same changes at other neurons that are as active. Factors depend on the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import NotPossible
from ...data import Concept
from ...edits import LowRank, WeightEdit
from ...models import LanguageModel
from ..controls import ControlConfig, fit_permuted_neurons
from ..method import Method

if TYPE_CHECKING:
    from ..shared import Shared


@dataclass(frozen=True)
class SnmfConfig:
    """The factorisation and the edit."""

    n: int = 3  # factors that are edited, the best of all layers
    mu: float = 2.0  # strength, in largest projections of a row
    tau: float = 0.3  # share of the factor's largest entry that a neuron must exceed
    k: int = 64  # factors per layer
    iterations: int = 40
    min_ratio: float = 2.0  # a factor fires so many times as strongly on the concept as elsewhere
    deepest: float = 0.5  # share of the depth: dictionaries' layers before it
    seed: int = -1  # of the start; -1: that of the parts


def semi_nmf(
    A: Float[Tensor, "tokens d_mlp"], k: int, iterations: int = 40, seed: int = 0
) -> tuple[Float[Tensor, "tokens k"], Float[Tensor, "k d_mlp"]]:
    """`A ~ Y Z` by alternating least squares for Z and multiplicative steps for Y, which keep it at 0 or above.

    A step never raises the squared error. Z has rows of norm 1.
    """
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randperm(len(A), generator=generator)[: min(k, len(A))].to(A.device)
    Z = torch.nn.functional.normalize(A[picks], dim=1)
    Y = (A @ Z.T).clamp_min(0) + 1e-3 * A.abs().mean()
    eye = torch.eye(len(Z)).to(A)
    for _ in range(iterations):
        gram = Y.T @ Y
        Z = torch.linalg.solve(gram + 1e-6 * gram.diagonal().mean() * eye, Y.T @ A)
        cross, square = A @ Z.T, Z @ Z.T
        up = cross.clamp_min(0) + Y @ (-square).clamp_min(0)
        down = (-cross).clamp_min(0) + Y @ square.clamp_min(0)
        Y = Y * (up / down.clamp_min(1e-12)).sqrt()
    norms = Z.norm(dim=1).clamp_min(1e-12)
    return Y * norms, Z / norms[:, None]


@torch.no_grad()
def concept_factors(shared: Shared, config: SnmfConfig) -> list[tuple[float, int, Tensor]]:
    """(times as active as on any other group, layer, factor) of those that fire often enough, the best first."""
    lm, seed, found = shared.lm, shared.seed if config.seed < 0 else int(config.seed), []
    for layer, groups in shared.evidence.neurons.items():
        if layer > config.deepest * lm.n_layers:
            continue
        Y, Z = semi_nmf(torch.cat(groups), config.k, config.iterations, seed)
        means = torch.stack([part.mean(0) for part in Y.split([len(g) for g in groups])])
        own, other = means[: shared.evidence.own].amin(0), means[shared.evidence.own :].amax(0)
        ratio = own / other.clamp_min(1e-9 * float(means.max()))
        found += [(float(ratio[i]), layer, Z[i]) for i in (ratio >= config.min_ratio).nonzero()[:, 0].tolist()]
    if not found:
        raise NotPossible(f"No factor fires {config.min_ratio:g} times as much on the concept as elsewhere.")
    return sorted(found, key=lambda row: -row[0])


@torch.no_grad()
def snmf_edit(lm: LanguageModel, factors: list[tuple[float, int, Tensor]], mu: float, tau: float) -> WeightEdit:
    """The edit above, a rank for each factor."""
    parts: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for _, layer, z in factors:
        rows = lm.down_proj(layer).float()
        d = torch.nn.functional.normalize(z @ rows, dim=0)
        largest = (rows @ d).abs().max()
        coefficients = torch.where(z.abs() > tau * z.abs().max(), -mu * largest * z.sign(), 0.0)
        parts.setdefault(layer, []).append((d, coefficients))
    changes: dict[str, LowRank] = {
        lm.down_proj_name(layer): LowRank(torch.stack([d for d, _ in pairs], 1), torch.stack([c for _, c in pairs]))
        for layer, pairs in parts.items()
    }
    return WeightEdit.of(lm, changes, {"method": "snmf", "factors": len(factors), "mu": mu})


def fit_snmf(lm: LanguageModel, concept: Concept, config: SnmfConfig, shared: Shared) -> WeightEdit:
    """Factors once, then the edit of the `n` best."""
    key = ("snmf", config.k, config.iterations, config.deepest, config.seed)
    factors = shared.made(key, lambda: concept_factors(shared, config))
    return snmf_edit(lm, factors[: int(config.n)], config.mu, config.tau)


SNMF = Method(
    "snmf", "localised", "semi-NMF of neuron activations, then PISCES' edit (the SNMF baseline of arXiv 2606.03695)",
    SnmfConfig(), fit_snmf, {"n": (2, 5), "mu": (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)}, ("dictionaries",),
    "factorising 20 s",
)  # fmt: skip
SNMF_PERMUTED = Method(
    "snmf_permuted", "control", "ours: the chosen factors' changes at other neurons that are as active",
    ControlConfig("snmf"), fit_permuted_neurons, needs=("snmf",),
)  # fmt: skip
