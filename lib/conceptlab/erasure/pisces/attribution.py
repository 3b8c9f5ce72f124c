"""What each feature, or each layer, of an edit costs the target and everything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ...core import ConceptLabError
from ...data import Concept
from ...edits import WeightEdit
from ...evaluation import edit_effects
from ...models import LanguageModel
from .features import Feature


@dataclass(frozen=True)
class FeatureEffect:
    """One part of an edit. Both rows: change in nats per token on target, neighbour and general dev questions."""

    part: str  # the feature or the layer
    alone: Float[Tensor, " sets"]  # the edit of this part alone
    within: Float[Tensor, " sets"]  # the whole edit minus the edit without this part
    size: float  # Frobenius norm of the edit of this part alone


def attribute(
    lm: LanguageModel,
    features: Sequence[Feature],
    make: Callable[[list[Feature]], WeightEdit],
    concept: Concept,
    by: str = "feature",
    n_questions: int = 16,
    progress: bool = False,
) -> list[FeatureEffect]:
    """Costs of the parts of `make(features)`, by "feature" or by "layer", in the order of the list.

    Where a part costs less within the edit than alone, others of its layer do the same work. With PISCES the scale of
    a layer depends on all its features (M), so leaving one out may change the others a little.
    """
    if by not in ("feature", "layer"):
        raise ConceptLabError(f'Costs are attributed by "feature" or by "layer"; got {by!r}.')
    groups: dict[str, list[Feature]] = {}
    for f in features:
        groups.setdefault(str(f) if by == "feature" else f"layer {f.layer}", []).append(f)
    if not groups:
        raise ConceptLabError("No features were given, so there is nothing to attribute; choose some first.")
    whole = make(list(features))
    alone = [make(part) for part in groups.values()]
    rest = [[f for f in features if f not in part] for part in groups.values()]
    without = [make(others) if others else whole * 0.0 for others in rest]
    effects = edit_effects(lm, [whole, *alone, *without], concept, n_questions, progress=progress)
    n = len(groups)
    return [
        FeatureEffect(name, effects[1 + i], effects[0] - effects[1 + n + i], alone[i].report(lm)["norm"])
        for i, name in enumerate(groups)
    ]
