"""Checks of the exercises of notebook 04. Oracles: encode-edit-decode row by row, and what a sign must do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..models import LanguageModel
from ..pisces import Dictionaries, Feature, pisces_edit
from ..sae import SAE, SAEConfig, TopKSAE
from .feedback import check_equal, check_true, passed


def _toy(d_model: int = 12, d_mlp: int = 20, d_sae: int = 16) -> tuple[SAE, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sae = TopKSAE(SAEConfig("topk", d_model, d_sae, 4, "toy", 0, "toy"), seed=1).double().requires_grad_(False)
    sae.W_enc += 0.3 * torch.randn(d_model, d_sae, generator=generator).double()
    sae.b_dec += 0.05 * torch.randn(d_model, generator=generator).double()
    return sae, torch.randn(d_mlp, d_model, generator=generator).double()


def check_closed_form(answer: Callable) -> None:
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
    passed(name, right, check_true("rows outside J_f", untouched, "rows outside J_f must stay exactly as they were."))


def check_turned(
    answer: Sequence[Feature], features: Sequence[Feature], lm: LanguageModel, saes: Dictionaries, signs: dict
) -> None:
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
    passed(name, same, turned, check_true("edits are opposite", opposite, hint))
