"""Control units for a layer: raw neurons, random directions, and an untrained dictionary, at the features' rates.

Every kind passes through the same explainers, judges and scorers, so a table of features and controls is one loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError
from ..data import Harvest
from ..models import LanguageModel
from ..sae import SAE
from .firings import Firings, dense_firings, neuron_values, random_dictionary, sae_firings


@dataclass(frozen=True)
class Units:
    """Units of one kind, with what they read and what they write."""

    kind: str  # "features", "neurons", "random_directions" or "random_sae"
    firings: Firings
    units: tuple[int, ...]  # indices into firings and directions; the i-th is paired with the i-th feature
    directions: Float[Tensor, "n d_model"]  # what each writes to the residual stream
    names: tuple[int, ...]  # the i-th unit's number in the model or dictionary


def feature_units(lm: LanguageModel, sae: SAE, firings: Firings, features: Sequence[int]) -> Units:
    """Features of a dictionary as units."""
    return Units("features", firings, tuple(features), sae.residual_directions(lm), tuple(features))


@torch.no_grad()
def control_units(
    lm: LanguageModel,
    sae: SAE,
    data: Harvest,
    features: Units,
    seed: int = 0,
    kinds: Sequence[str] = ("neurons", "random_directions", "random_sae"),
    progress: bool = True,
) -> dict[str, Units]:
    """One control unit of each kind for every feature, firing on as many tokens of the harvest.

    `neurons`: random neurons of the layer's MLP; `random_directions`: the centred activations' projection on random
    directions. Both fire where they are largest, positive parts only. `random_sae`: features of an untrained
    dictionary of equal shape, the one nearest in rate for each feature; it keeps its strongest firings, and where no
    unused one fires as often its rate stays lower. Raises ConceptLabError for an unknown kind.
    """
    known = {"neurons": _neurons, "random_directions": _random_directions, "random_sae": _random_sae}
    if unknown := [kind for kind in kinds if kind not in known]:
        raise ConceptLabError(f"Unknown control {unknown[0]!r}; there are {', '.join(known)}.")
    rates = features.firings.rates()[list(features.units)]
    return {kind: known[kind](lm, sae, data, rates, seed, progress) for kind in kinds}


def control_neurons(lm: LanguageModel, n: int, seed: int = 0) -> list[int]:
    """The `n` random neurons that serve as controls, the same numbers in every layer."""
    if n > lm.d_mlp:
        raise ConceptLabError(f"{lm.name} has {lm.d_mlp} neurons per layer; {n} controls were asked for.")
    return torch.randperm(lm.d_mlp, generator=torch.Generator().manual_seed(seed))[:n].tolist()


def _neurons(lm: LanguageModel, sae: SAE, data: Harvest, rates: Tensor, seed: int, progress: bool) -> Units:
    layer = sae.cfg.hook_layer
    chosen = control_neurons(lm, len(rates), seed)
    firings = dense_firings(neuron_values(lm, data, layer, chosen, progress=progress), rates)
    return Units("neurons", firings, _all(rates), lm.value_vectors(layer)[chosen], tuple(chosen))


def _random_directions(lm: LanguageModel, sae: SAE, data: Harvest, rates: Tensor, seed: int, progress: bool) -> Units:
    x = data.tensor(sae.cfg.hook_layer)
    control = random_dictionary(sae, x, seed + 1)
    n = len(rates)
    if n > sae.cfg.d_sae:
        raise ConceptLabError(f"At most {sae.cfg.d_sae} random directions are drawn; {n} controls were asked for.")
    scores = (x - x.mean(0)) @ control.W_dec[:n].cpu().T
    return Units(
        "random_directions", dense_firings(scores, rates), _all(rates), control.residual_directions(lm)[:n], _all(rates)
    )


def _random_sae(lm: LanguageModel, sae: SAE, data: Harvest, rates: Tensor, seed: int, progress: bool) -> Units:
    x = data.tensor(sae.cfg.hook_layer)
    control = random_dictionary(sae, x, seed)
    found = sae_firings(control, x)
    free = found.counts().double()
    if len(rates) > int((free > 0).sum()):
        raise ConceptLabError(f"Only {int((free > 0).sum())} features of the untrained dictionary ever fire.")
    wanted = (rates.double() * len(x)).round()
    chosen = [0] * len(rates)
    for i in wanted.argsort(descending=True).tolist():  # the commonest first: they have the fewest candidates
        enough = torch.where(free >= wanted[i], free, torch.inf)
        chosen[i] = int(enough.argmin() if bool(enough.isfinite().any()) else free.argmax())
        free[chosen[i]] = -1
    kept, written = strongest(found, chosen, wanted.long()), control.residual_directions(lm)[chosen]
    return Units("random_sae", kept, _all(rates), written, tuple(chosen))


def strongest(firings: Firings, units: Sequence[int], counts: Tensor) -> Firings:
    """The chosen units with at most `counts[i]` of their firings each, the strongest ones."""
    parts = [
        firings.strong(u, min(1.0, int(n) / max(1, len(firings.of(u)[0])))) for u, n in zip(units, counts, strict=True)
    ]
    ends = torch.tensor([0, *(len(token) for token, _ in parts)]).cumsum(0)
    return Firings(torch.cat([t for t, _ in parts]), torch.cat([v for _, v in parts]), ends, firings.n_tokens)


def _all(rates: Tensor) -> tuple[int, ...]:
    return tuple(range(len(rates)))
