"""An edit at the strength at which it has done a given amount, for experiments that compare methods at equal effect."""

from __future__ import annotations

from collections.abc import Callable

from ..core import ConceptLabError
from ..edits import Intervention
from .curves import scaled


def scale_to(
    edit: Intervention, left: Callable[[Intervention], float], wanted: float, most: float = 4.0, halvings: int = 3
) -> tuple[Intervention, float, float]:
    """The edit at the strength at which `left(edit)` is nearest to `wanted`; its scale; what is left there.

    `left` falls as the edit grows stronger. Scales are doubled from a quarter until little enough is left or `most` is
    reached, then the last interval is halved. An edit too weak even at `most` comes back at `most`.
    """
    if not most > 0 or halvings < 0:
        raise ConceptLabError(f"A largest scale above 0 and halvings of at least 0 are needed; got {most}, {halvings}.")
    low, high, tried = 0.0, min(0.25, most), {}
    while (value := left(scaled(edit, high))) > wanted and high < most:
        tried[high] = value
        low, high = high, min(2 * high, most)
    tried[high] = value
    if value <= wanted:
        for _ in range(halvings):
            middle = (low + high) / 2
            tried[middle] = left(scaled(edit, middle))
            low, high = (low, middle) if tried[middle] <= wanted else (middle, high)
    best = min(tried, key=lambda scale: abs(tried[scale] - wanted))
    return scaled(edit, best), best, tried[best]
