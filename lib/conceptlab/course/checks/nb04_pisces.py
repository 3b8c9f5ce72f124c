"""Checks of the exercises of notebook 04.

Oracles: encode-edit-decode row by row, what a sign must do, a forward pass through the norm, counting by hand.
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


def check_turned(
    answer: Sequence[Feature], features: Sequence[Feature], lm: LanguageModel, saes: Dictionaries, signs: dict
) -> Points:
    """`answer`: the same features with their signs turned; then the edit writes the opposite into every row."""
    name = "inverted sign"
    if answer is None or not all(isinstance(f, Feature) for f in answer):
        check_true("features", False, "give a list of Feature, for example made with dataclasses.replace.")
        return passed(name, False)
    places = [[(f.layer, f.index) for f in found] for found in (answer, features)]
    same = check_true("same features", places[0] == places[1], "layer and index of each must stay, and their order.")
    all_turned = same and all(a.sign == -f.sign for a, f in zip(answer, features, strict=True))
    turned = check_true("signs turned", all_turned, "every sign must be minus the old one.")
    opposite = False
    if same:  # what is written is odd in the sign: right + turned = twice the edit that only removes (mu = 0)
        right, other, removed = (
            pisces_edit(lm, saes, f, 0.2, mu, signs) for f, mu in ((features, 1.0), (answer, 1.0), (features, 0.0))
        )
        gaps = [
            (right.changes[n].dense() + other.changes[n].dense() - 2 * removed.changes[n].dense()).abs().max()
            for n in right.changes
        ]
        opposite = all(float(gap) < 1e-5 for gap in gaps)
    hint = "the two edits must differ by the sign of what they write, in every row."
    return passed(name, same, turned, check_true("edits are opposite", opposite, hint))


def check_reach(answer: Callable) -> Points:
    """`answer(own, others, through) -> [k]`: RMS of what passes `through [d_mlp, k]` on own over the largest on others.

    `own [tokens, d_mlp]`; `others`: a list of such tensors. Oracle: one token at a time.
    """
    name = "reach of an edit"
    own, others = random_tensor(7, 5), [random_tensor(4, 5, seed=1), 2 * random_tensor(9, 5, seed=2)]
    through = random_tensor(5, 3, seed=3).sign()
    got = call(name, answer, own, others, through)

    def rms(tokens: Tensor) -> Tensor:
        total = torch.zeros(3)
        for token in tokens:  # one after the other
            total += torch.tensor([float(sum(token * through[:, k])) ** 2 for k in range(3)])
        return (total / len(tokens)).sqrt()

    sizes = torch.stack([rms(group) for group in others])
    mistakes = {
        "the other groups are pooled: take the root mean square of each and then the largest.": rms(own)
        / rms(torch.cat(others)),
        "the mean lets positive and negative writing cancel: square first.": (own @ through).mean(0)
        / torch.stack([(g @ through).mean(0) for g in others]).amax(0),
        "the root is missing.": (rms(own) / sizes.amax(0)) ** 2,
        "that is the ratio to the smallest of the others, the edit harms the largest.": rms(own) / sizes.amin(0),
    }
    right = check_equal("against one token at a time", got, rms(own) / sizes.amax(0), mistakes)
    scaled = call(name, answer, 3 * own, others, 5 * through)
    same = check_equal("own three times as active", scaled, 3 * rms(own) / sizes.amax(0))
    return passed(name, right, same)


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
