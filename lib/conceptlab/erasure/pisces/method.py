"""PISCES and the directional ablation of the same features, as methods.

PISCES (Gur-Arieh et al. 2025, section 3): features of a dictionary of MLP outputs that read and write the concept are
written out of the rows of the down projection, `w_j += sum_f (a'_jf - a_jf) W_dec[f]` (`pisces_edit`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...data import Concept
from ...edits import WeightEdit
from ...models import LanguageModel
from ..method import Axes, Method
from .edit import directional_edit, pisces_edit

if TYPE_CHECKING:
    from ..shared import Shared


@dataclass(frozen=True)
class PiscesConfig:
    """Strength of the published edit; where the authors give features for a concept their ramp is used."""

    n: int = 5  # features that are edited, at most, the best first
    tau: float = 0.5  # share of the largest projection that a row must exceed; 0.3 to 0.7 did the same on dev
    mu: float = 10.0  # strength, in largest projections of the layer (there 12 to 48)
    ramp: int = 0  # layers below it are edited more weakly


def fit_pisces(lm: LanguageModel, concept: Concept, config: PiscesConfig, shared: Shared) -> WeightEdit:
    """The edit of the first `n` features."""
    ramp = shared.published.ramp if shared.published else config.ramp
    chosen = shared.features[: config.n]
    return pisces_edit(lm, shared.dictionaries, chosen, config.tau, config.mu, shared.signs, ramp=ramp)


def pisces_axes(axes: Axes, shared: Shared) -> Axes:
    """The grid without counts that there are no features for, and with the published setting where there is one."""
    found, axes = len(shared.features), dict(axes)
    counts = axes.get("n", (found,))
    axes["n"] = sorted({min(n, found) for n in counts})
    if shared.picked is not None:
        axes["n"] = [found]
    if (published := shared.published) is not None:
        axes["tau"] = sorted({*axes.get("tau", ()), published.tau}, reverse=True)
        axes["mu"] = sorted({*axes.get("mu", ()), published.mu})
    return axes


PISCES = Method(
    "pisces",
    "dictionary",
    "Gur-Arieh et al. 2025 (PISCES), section 3.2; closed form of encode, edit, decode",
    PiscesConfig(),
    fit_pisces,
    knobs={"n": (5, 12), "tau": (0.5,), "mu": (3.0, 6.0, 10.0, 16.0, 24.0, 36.0)},
    needs=("dictionaries", "features"),
    cost="finding features 30 s, the edit 0.03 s",
    axes=pisces_axes,
)


@dataclass(frozen=True)
class DirectionalConfig:
    """Strength of the ablation."""

    c: float = 2.0  # 1 removes what the layer writes along the features, 2 turns it round


def fit_directional(lm: LanguageModel, concept: Concept, config: DirectionalConfig, shared: Shared) -> WeightEdit:
    """`W <- W - c (W Q) Q^T` in every row, `Q` spanning all features that were found."""
    return directional_edit(lm, shared.dictionaries, shared.features, config.c)


DIRECTIONAL = Method(
    "directional",
    "dictionary",
    "directional ablation (Arditi et al. 2024, section 2.4) of the same features, in the layer's rows",
    DirectionalConfig(),
    fit_directional,
    knobs={"c": (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0)},
    needs=("dictionaries", "features"),
    cost="finding features 30 s, the edit 0.03 s",
)
