"""Checks of the exercises of notebook 04.

Oracles: encode-edit-decode row by row, what a sign must do, a forward pass through the norm, counting and a t-interval
by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...erasure import Dictionaries, Feature, pisces_edit
from ...models import LanguageModel
from ...sae import SAE, SAEConfig, TopKSAE
from ..record import Points
from .feedback import call, check_equal, check_true, passed, random_tensor


def _toy(d_model: int = 12, d_mlp: int = 20, d_sae: int = 16) -> tuple[SAE, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sae = TopKSAE(SAEConfig("topk", d_model, d_sae, 4, "toy", 0, "toy"), seed=1).double().requires_grad_(False)
    sae.W_enc.add_(0.3 * torch.randn(d_model, d_sae, generator=generator).double())
    sae.b_dec.add_(0.05 * torch.randn(d_model, generator=generator).double())
    return sae, torch.randn(d_mlp, d_model, generator=generator).double()


def check_closed_form(answer: Callable) -> Points:
    """`answer(sae, rows, f, tau, target) -> new rows`: feature f's activation becomes `target` in the rows of J_f."""
    name = "closed form of the edit"
    sae, rows = _toy()
    f, tau, target = 5, 0.4, -3.0
    e = rows @ sae.W_enc[:, f]
    chosen = e.abs() > tau * e.abs().max()
    want, lost, everywhere = rows.clone(), rows.clone(), rows.clone()
    for j in range(len(rows)):  # the loop: encode, write the activation, decode, keep the residual
        a = sae.encode(rows[j][None])[0]
        new = a.clone()
        new[f] = target
        everywhere[j] = sae.decode(new) + rows[j] - sae.decode(a)
        if chosen[j]:
            want[j], lost[j] = everywhere[j], sae.decode(new)
    added = rows + chosen[:, None] * target * sae.W_dec[f]
    positive = e > tau * e.max()
    mistakes = {
        "the reconstruction residual is lost: add it back, or use the closed form.": lost,
        "every row was changed: only rows with |e_j| > tau max|e| may.": everywhere,
        "the activation that is already there was not taken out: use target minus encode(row)[f].": added,
        "rows with a negative projection count too: compare |e_j|.": torch.where(positive[:, None], everywhere, rows),
    }
    try:
        got = answer(sae, rows.clone(), f, tau, target)
    except Exception as error:  # a stub must not stop the notebook
        check_true("runs", False, f"{type(error).__name__}: {error}")
        return passed(name, False)
    right = check_equal("edited rows", got, want, mistakes, tol=1e-9)
    untouched = isinstance(got, Tensor) and got.shape == rows.shape and torch.equal(got[~chosen], rows[~chosen])
    return passed(
        name, right, check_true("rows outside J_f", untouched, "rows outside J_f must stay exactly as they were.")
    )


def check_selective(answer: Callable) -> Points:
    """`answer(means, own, share) -> indices`: features whose weakest own group has `share` times every other group."""
    name = "selective features"
    means = torch.tensor(
        [  # four groups, the first two the concept's; features: yes, one group only, near, dead, yes, no, yes
            [4.0, 9.0, 3.0, 0.0, 2.0, 1.0, 0.6],
            [2.0, 0.1, 5.0, 0.0, 3.0, 1.5, 0.9],
            [0.5, 0.2, 2.0, 0.0, 1.0, 4.0, 0.0],
            [1.0, 0.3, 0.1, 0.0, 0.2, 0.1, 0.0],
        ]
    )
    pooled, loose = means[:2].mean(0) >= 2 * means[2:].amax(0), means[:2].amin(0) >= 2 * means[2:].mean(0)
    alive = means[:2].amin(0) > 0
    strict = means[:2].amin(0) > 2 * means[2:].amax(0)
    mistakes = {
        "take the weaker of the concept's groups: a feature may fire on one of them by chance.": pooled & alive,
        "take the strongest of the other groups, not their mean: the neighbour is what the edit would harm.": loose
        & alive,
        "a feature that never fires is not selective: ask for more than 0.": means[:2].amin(0) >= 2 * means[2:].amax(0),
        "exactly `share` times as strongly counts, too.": strict,
    }
    got = [call(name, answer, means.clone(), own, share) for own, share in ((2, 2.0), (1, 8.0))]
    want = [torch.tensor([float(i in chosen) for i in range(7)]) for chosen in ((0, 4, 6), (1,))]
    right = check_equal("four groups, seven features", _mask(got[0], 7), want[0], mistakes)
    return passed(name, right, check_equal("one group of the concept's, eight times", _mask(got[1], 7), want[1]))


def _mask(indices: object, n: int) -> object:
    """Indices as a row of zeros and ones, so that two choices can be compared whatever their sizes."""
    if not isinstance(indices, Tensor) or indices.dtype != torch.long or not bool((indices < n).all()):
        return indices
    return torch.zeros(n).index_fill_(0, indices.flatten(), 1.0)


def check_turned(
    answer: Callable, features: Sequence[Feature], lm: LanguageModel, saes: Dictionaries, signs: dict
) -> Points:
    """`answer(features)`: the same features with their signs turned; then the edit writes the opposite."""
    name = "inverted sign"
    got = call(name, answer, list(features))
    if not isinstance(got, list | tuple) or not all(isinstance(f, Feature) for f in got):
        check_true("features", False, "return a list of Feature, for example made with dataclasses.replace.")
        return passed(name, False)
    places = [[(f.layer, f.index) for f in found] for found in (got, features)]
    same = check_true("same features", places[0] == places[1], "layer and index of each must stay, and their order.")
    all_turned = same and all(a.sign == -f.sign for a, f in zip(got, features, strict=True))
    turned = check_true("signs turned", all_turned, "every sign must be minus the old one.")
    opposite = False
    if same:  # what is written is odd in the sign: right + turned = twice the edit that only removes (mu = 0)
        zero = pisces_edit(lm, saes, features, 0.5, 0.0, signs)
        pair = [pisces_edit(lm, saes, found, 0.5, 10.0, signs) for found in (features, got)]
        sums = [pair[0].changes[n].dense() + pair[1].changes[n].dense() for n in zero.changes]
        opposite = all(
            torch.allclose(total, 2 * change.dense(), atol=1e-3)
            for total, change in zip(sums, zero.changes.values(), strict=True)
        )
    hint = "the two edits must differ by the sign of what they write, in every row."
    return passed(name, same, turned, check_true("edits are opposite", opposite, hint))


def check_norm_side(answer: Callable) -> Points:
    """`answer(change, gain) -> raw [d_mlp, d_model]`: `change` is wanted behind a norm with this gain per dimension.

    Oracle: what the layer adds to the residual stream, `rms_norm(neurons @ W) * gain`, with the normaliser held fixed.
    """
    name = "the right side of the norm"
    change, gain = random_tensor(6, 4), torch.tensor([0.5, -2.0, 3.0, 0.0])
    got = call(name, answer, change.clone(), gain.clone())
    reachable = torch.where(gain == 0, 0.0, change)
    mistakes = {
        "the change is multiplied by the gain; behind the norm it would then be scaled twice.": change * gain,
        "the gain is ignored, as in the authors' code: the change is turned on its way out.": change,
        "dimension 3 has gain 0: nothing can be written there, so the change must be 0.": torch.where(
            gain == 0, change, change / gain
        ),
    }
    right = check_equal("raw change", got, torch.where(gain == 0, 0.0, change / gain), mistakes)
    behind = False
    if isinstance(got, Tensor) and got.shape == change.shape:
        neurons, rows = random_tensor(9, 6, seed=1), random_tensor(6, 4, seed=2)
        rms = (neurons @ rows).square().mean(1, keepdim=True).sqrt()
        moved = (neurons @ (rows + got.float()) / rms * gain) - (neurons @ rows / rms * gain)
        behind = bool(torch.allclose(moved, neurons @ reachable / rms, atol=1e-4))
    hint = "run a layer: neurons @ (W + raw), divided by the rms, times the gain, must move by neurons @ change / rms."
    return passed(name, right, check_true("behind the norm it is the change", behind, hint))


def check_scores(relative: Callable, overall: Callable) -> Points:
    """`relative(before, after, chance)`: accuracy kept; `overall(parts)`: a mean that one failure brings to 0."""
    name = "scores of an erasure"
    cases = [(0.85, 0.40, 0.25), (0.85, 0.85, 0.25), (0.70, 0.90, 0.25), (0.70, 0.10, 0.25)]
    got = [call(name, relative, *case) for case in cases]
    want = [0.25, 1.0, 1.0, 0.0]  # (0.40 - 0.25) / (0.85 - 0.25) is a quarter; the others are clipped
    mistakes = {
        "chance is not taken off: 0.25 is what guessing gives.": torch.tensor([a / b for b, a, _ in cases]),
        "clip it to 0 and 1: better than before is 1, worse than guessing is 0.": torch.tensor(
            [(a - c) / (b - c) for b, a, c in cases]
        ),
    }
    numbers = None if any(x is None for x in got) else got
    kept = check_equal("accuracy kept", numbers, torch.tensor(want), mistakes)
    unknown = [call(name, relative, *case) for case in ((0.20, 0.60, 0.25), (0.25, 0.25, 0.25))]
    good = all(isinstance(x, float | int) and math.isnan(x) for x in unknown)
    hint = "what the model never knew cannot be measured, neither as 0 nor as 1: return float('nan')."
    measured = check_true("nothing known before: nan", good, hint)
    means = [call(name, overall, parts) for parts in ([0.5, 1.0, 1.0], [1.0, 1.0, 0.0], [0.25, 0.75])]
    numbers = None if any(x is None for x in means) else means
    mistakes = {
        "that is the arithmetic mean, which hides a failure: use the harmonic mean.": torch.tensor(
            [2.5 / 3, 2 / 3, 0.5]
        ),
        "zeros are dropped (as in the authors' code); one 0 must give 0.": torch.tensor([0.75, 1.0, 0.375]),
    }
    return passed(name, kept, measured, check_equal("overall", numbers, torch.tensor([0.75, 0.0, 0.375]), mistakes))


def check_paired(answer: Callable) -> Points:
    """`answer(a, b) -> (mean, low, high)` of the differences over the concepts that both have, Student's t."""
    name = "paired difference over concepts"
    a = {"golf": 0.9, "japan": 0.5, "cancer": 0.1, "rome": 0.3, "only_a": 0.0}
    b = {"rome": 0.1, "golf": 0.6, "cancer": 0.05, "japan": 0.5, "only_b": 1.0}
    gaps = [0.3, 0.0, 0.05, 0.2]
    mean = sum(gaps) / 4
    spread = math.sqrt(sum((x - mean) ** 2 for x in gaps) / 3)
    half, t = spread / 2, 3.182446  # t: 97.5 % quantile at 3 degrees of freedom
    other = math.sqrt(sum((x - mean) ** 2 for x in gaps) / 4) / 2
    crossed = [x - y for x, y in zip(a.values(), b.values(), strict=True)]
    middle = sum(crossed) / 5
    wide = math.sqrt(sum((x - middle) ** 2 for x in crossed) / 4 / 5) * 2.776445

    def three(center: float, half: float) -> Tensor:
        return torch.tensor([center, center - half, center + half])

    mistakes = {
        "concepts are paired by name, not by their place in the two lists.": three(middle, wide),
        "with four concepts the quantile is Student's t, not 1.96.": three(mean, 1.959964 * half),
        "divide the squares by n - 1: the spread is estimated from the same four numbers.": three(mean, t * other),
        "that is the spread of single concepts; the mean of n is surer by the root of n.": three(mean, t * spread),
        "degrees of freedom are n - 1.": three(mean, 2.776445 * half),
    }
    got = call(name, answer, dict(a), dict(b))
    numbers = None if got is None or not isinstance(got, tuple | list | Tensor) else got
    right = check_equal("four concepts in both", numbers, three(mean, t * half), mistakes)
    few = call(name, answer, {"golf": 0.5, "japan": 0.7}, {"golf": 0.1, "japan": 0.2})
    good = isinstance(few, tuple | list) and len(few) == 3 and all(isinstance(x, float | int) for x in few)
    if good and isinstance(few, tuple | list):
        good = abs(few[0] - 0.45) < 1e-6 and math.isnan(few[1]) and math.isnan(few[2])
    told = check_true("two concepts: a mean and no interval", good, "below three return (mean, nan, nan).")
    turned = call(name, answer, dict(b), dict(a))
    return passed(name, right, told, check_equal("b minus a is the negative", turned, three(-mean, t * half)))
