"""How far a model's predictions are from the original's, and what share of that distance a treatment takes back.

Per answer position, with logits `z` `[d_vocab]` of the model, `z0` of the original and `p0 = softmax(z0)`:

    mse      mean_v (z_v - z0_v)^2                                   the published measure
    centred  the same after each side's mean over v is taken off     a shift of all logits, which no probability shows,
                                                                     does not count
    kl       sum_v p0_v (log p0_v - log p_v)                         nats; only what is likely counts
    gold     log p of the answer's token                             nats; the fact alone

Each is averaged over the positions of an answer. The knowledge recovery score of arXiv 2410.06606 is
`1 - distance(treated) / distance(unlearned)`; there it is computed per question and averaged, here it is the ratio of
the means over questions (a question that the edit hardly touched has a small denominator and would rule the average).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core import ConceptLabError, Interval, recovered_share, share_difference

DISTANCES = ("mse", "centred", "kl", "gold")


@dataclass(frozen=True)
class Distances:
    """One number per question: three distances from the original, and the answer's log-probability per token."""

    mse: Float[Tensor, " n"]  # squared logits
    centred: Float[Tensor, " n"]  # squared logits
    kl: Float[Tensor, " n"]  # nats
    gold: Float[Tensor, " n"]  # nats, of the answer itself: higher is better

    def rounded(self) -> dict[str, list[float]]:
        """For records: five significant digits."""
        return {m: [float(f"{x:.5g}") for x in getattr(self, m).tolist()] for m in DISTANCES}


def distances(
    logits: Float[Tensor, "tokens d_vocab"],
    original: Float[Tensor, "tokens d_vocab"],
    targets: Int[Tensor, " tokens"],
    lengths: Sequence[int],
) -> Distances:
    """The four numbers of every question; `lengths`: tokens of each answer, in order."""
    if logits.shape != original.shape or len(targets) != len(logits) or sum(lengths) != len(logits):
        raise ConceptLabError(
            f"Distances compare logits of the same {sum(lengths)} answer tokens; got {list(logits.shape)}, "
            f"{list(original.shape)} and {len(targets)} targets."
        )
    z, z0, targets = logits.float(), original.float(), targets.to(logits.device)
    gap = z - z0
    logp, logp0 = z.log_softmax(-1), z0.log_softmax(-1)
    per_token = {
        "mse": gap.square().mean(-1),
        "centred": gap.var(-1, correction=0),
        "kl": (logp0.exp() * (logp0 - logp)).sum(-1),
        "gold": logp.gather(1, targets[:, None])[:, 0],
    }
    sizes = list(lengths)
    return Distances(**{m: torch.stack([p.mean() for p in x.cpu().split(sizes)]) for m, x in per_token.items()})


Columns = tuple[Tensor, Tensor, Tensor]


def _columns(original: Distances, unlearned: Distances, treated: Distances, measure: str) -> Columns:
    """What is whole, what was lost and what is there now, the higher the better."""
    if measure not in DISTANCES:
        raise ConceptLabError(f"Unknown measure {measure!r}; there are {', '.join(DISTANCES)}.")
    sign = 1.0 if measure == "gold" else -1.0
    whole, lost, now = (sign * getattr(x, measure) for x in (original, unlearned, treated))
    return whole, lost, now


def share_taken_back(
    original: Distances,
    unlearned: Distances,
    treated: Distances,
    measure: str = "kl",
    groups: Int[Tensor, " n"] | None = None,
    minus: tuple[Distances, Distances, Distances] | None = None,
) -> Interval:
    """The share of the distance that the treatment takes back: 0 nothing, 1 everything; with a 95 % interval.

    Not measurable where it is not sure that there is a distance (see `recovered_share`, also for `groups`). `minus`:
    the same three of another edit on the same questions; then it is the difference of the two shares, paired.
    """
    mine = _columns(original, unlearned, treated, measure)
    if minus is not None:
        return share_difference(mine, _columns(*minus, measure), groups)
    return recovered_share(*mine, groups)
