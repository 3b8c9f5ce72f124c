"""Every check of notebooks 04 and 05 passes the course's answer and fails at least three wrong ones."""

import math
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from conceptlab.core import t_quantile
from conceptlab.course import EXERCISES, exercises_of
from conceptlab.course.checks import answers_erasing as right
from conceptlab.course.checks import nb04_pisces as nb04
from conceptlab.course.checks import nb05_attacks as nb05
from conceptlab.course.checks.answers import ANSWERS
from conceptlab.erasure import Feature
from conceptlab.sae import SAEConfig, TopKSAE
from exercises_of_checks import assert_right_and_wrong

NAN = float("nan")


def kept(b, a, c):
    return min(max((a - c) / (b - c), 0.0), 1.0) if b > c else NAN


def harmonic(parts):
    return len(parts) / sum(1 / p for p in parts) if min(parts) > 0 else 0.0


def unpaired(a, b):
    gaps = torch.tensor([x - y for x, y in zip(a.values(), b.values(), strict=True)]).double()
    half = t_quantile(len(gaps) - 1) * float(gaps.std()) / len(gaps) ** 0.5
    return float(gaps.mean()), float(gaps.mean()) - half, float(gaps.mean()) + half


def spread(t, ddof=1, root=True):
    def paired(a, b):
        gaps = torch.tensor([a[c] - b[c] for c in a if c in b]).double()
        mean, n = float(gaps.mean()), len(gaps)
        if n < 3:
            return mean, NAN, NAN
        half = t(n) * float(gaps.std(correction=ddof)) / (n**0.5 if root else 1)
        return mean, mean - half, mean + half

    return paired


def split_at(pattern, text, answers, flags=re.IGNORECASE):
    found = re.compile(pattern("|".join(map(re.escape, answers)) or "(?!)"), flags)
    return " ".join(s for s in re.split(r"(?<=[.!?])\s+", text) if not found.search(s))


class Unscaled(right.LoRA):
    def forward(self, x):
        return self.linear(x) + x @ self.A.T @ self.B.T


class Restless(right.LoRA):
    def __init__(self, linear, rank, alpha):
        super().__init__(linear, rank, alpha)
        nn.init.normal_(self.B)


class Dead(right.LoRA):
    def __init__(self, linear, rank, alpha):
        super().__init__(linear, rank, alpha)
        nn.init.zeros_(self.A)


class NotMerged(right.LoRA):
    def merged(self):
        return self.linear.weight


CASES = {
    "selective features": (nb04.check_selective, [
        lambda m, own, s: ((m[:own].mean(0) >= s * m[own:].amax(0)) & (m[:own].amin(0) > 0)).nonzero()[:, 0],
        lambda m, own, s: ((m[:own].amin(0) >= s * m[own:].mean(0)) & (m[:own].amin(0) > 0)).nonzero()[:, 0],
        lambda m, own, s: (m[:own].amin(0) >= s * m[own:].amax(0)).nonzero()[:, 0],
        lambda m, own, s: (m[:own].amin(0) > s * m[own:].amax(0)).nonzero()[:, 0],
        lambda m, own, s: (m[:2].amin(0) >= 2 * m[2:].amax(0)).nonzero()[:, 0],
    ]),
    "closed form of the edit": (nb04.check_closed_form, [
        lambda sae, rows, f, tau, t: rows + t * sae.W_dec[f],
        lambda sae, rows, f, tau, t: rows + (t - sae.encode(rows)[:, f])[:, None] * sae.W_dec[f],
        lambda sae, rows, f, tau, t: right.edit_rows(sae, rows, f, tau, t) + 1e-4,
        lambda sae, rows, f, tau, t: torch.where(
            ((rows @ sae.W_enc[:, f]) > tau * (rows @ sae.W_enc[:, f]).max())[:, None],
            rows + (t - sae.encode(rows)[:, f])[:, None] * sae.W_dec[f], rows),
    ]),
    "the right side of the norm": (nb04.check_norm_side, [
        lambda c, g: c, lambda c, g: c / g, lambda c, g: c * g, lambda c, g: torch.where(g == 0, c, c / g),
    ]),
    "paired difference over concepts": (nb04.check_paired, [
        unpaired, spread(lambda n: 1.959964), spread(lambda n: t_quantile(n - 1), ddof=0),
        spread(lambda n: t_quantile(n - 1), root=False), spread(t_quantile),
        lambda a, b: (0.1375, NAN, NAN),
    ]),
    "recovered share": (nb05.check_share, [
        lambda o, e, a: sum(a) / sum(o) if sum(o) else NAN,
        lambda o, e, a: right.my_share(o, e, a) if sum(o) / len(o) - sum(e) / len(e) >= 0.5 else NAN,
        lambda o, e, a: min(max(right.my_share(o, e, a), 0.0), 1.0),
        lambda o, e, a: 0.0 if math.isnan(right.my_share(o, e, a)) else right.my_share(o, e, a),
        lambda o, e, a: sum((z - y) / (x - y) for x, y, z in zip(o, e, a, strict=True) if x != y) / len(o),
    ]),
    "text without answers": (nb05.check_cut, [
        lambda text, answers: text,
        lambda text, answers: split_at(lambda w: w, text, answers),
        lambda text, answers: split_at(lambda w: rf"(?<!\w)(?:{w})(?!\w)", text, answers, 0),
        lambda text, answers: re.sub("|".join(map(re.escape, answers)) or "(?!)", "", text, flags=re.IGNORECASE),
    ]),
    "LoRA": (nb05.check_lora, [Unscaled, Restless, Dead, NotMerged]),
    "rounding": (nb05.check_rounding, [
        lambda W, bits: W,
        lambda W, bits: (W / W.abs().max() * (2 ** (bits - 1) - 1)).round() * W.abs().max() / (2 ** (bits - 1) - 1),
        lambda W, bits: (W / (W.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1))).round(),
        lambda W, bits: W.round(),
    ]),
    "candidate sets": (nb05.check_candidates, [
        lambda x, B: x[-1].topk(B).indices.tolist(),
        lambda x, B: x.amax(0).topk(B).indices.tolist(),
        lambda x, B: list(dict.fromkeys(x.argsort(1, descending=True).T.flatten().tolist()))[:B],
    ]),
    "gain above a control": (nb05.check_above_control, [
        lambda e, a, t, ta: right.above_control(e, a, torch.zeros_like(t), torch.zeros_like(ta)),
        lambda e, a, t, ta: right.above_control(e, a, ta, t),
        lambda e, a, t, ta: (float((a - ta).mean()), *right.above_control(e, a, t, ta)[1:]),
        lambda e, a, t, ta: float((a - e - ta + t).mean()),
    ]),
}  # fmt: skip
NAMED = {
    "selective features": ["the weaker of the concept's groups", "strongest of the other groups", "never fires"],
    "paired difference over concepts": ["not 1.96", "divide the squares by n - 1", "n - 1"],
    "recovered share": ["a small gap"],
}


@pytest.mark.parametrize("name", CASES)
def test_the_answer_passes_and_wrong_ones_do_not(name, capsys):
    assert_right_and_wrong(name, *CASES[name], NAMED.get(name, []), capsys)


WRONG_SCORES = [
    (lambda b, a, c: a / b, harmonic),
    (kept, lambda parts: sum(parts) / len(parts)),
    (kept, lambda parts: len([p for p in parts if p]) / sum(1 / p for p in parts if p)),
    (lambda b, a, c: (a - c) / (b - c), harmonic),
    (lambda b, a, c: 0.0 if b <= c else kept(b, a, c), harmonic),
    (lambda *_: None, lambda *_: 1 / 0),
]


def test_the_scores_of_an_erasure(capsys):
    points = nb04.check_scores(kept, harmonic)
    assert points and points.earned == EXERCISES[points.exercise].points
    assert nb04.check_scores(ANSWERS["scores of an erasure"], harmonic)
    for pair in WRONG_SCORES:
        assert not nb04.check_scores(*pair)


@pytest.fixture
def edited(tiny_llama):
    lm = tiny_llama()
    cfg = SAEConfig("topk", lm.d_model, 32, 4, lm.name, 1, "blocks.1.hook_mlp_out")
    return lm, {1: TopKSAE(cfg, seed=0).requires_grad_(False)}, {1: torch.ones(lm.d_mlp)}


def test_the_check_of_a_turned_sign(edited, capsys):
    lm, saes, signs = edited
    features = [Feature(1, 3, 1), Feature(1, 7, -1)]
    assert nb04.check_turned(ANSWERS["inverted sign"], features, lm, saes, signs)
    for wrong in (
        lambda fs: fs,
        lambda fs: [replace(f, sign=-1) for f in fs],
        lambda fs: right.turn_round(fs)[::-1],
        lambda fs: right.turn_round(fs)[:1],
        lambda fs: None,
        lambda fs: [1, 2],
        lambda fs: 1 / 0,
    ):
        assert not nb04.check_turned(wrong, features, lm, saes, signs)


def test_every_code_exercise_of_04_and_05_is_tried_here():
    code = {e.name for n in ("04", "05") for e in exercises_of(n) if not e.written}
    assert code == set(CASES) | {"scores of an erasure", "inverted sign"}
    for n in ("04", "05"):
        own = exercises_of(n)
        assert 5 <= len(own) <= 7
        assert any(e.difficulty == "hard" for e in own) and any(e.written for e in own)
