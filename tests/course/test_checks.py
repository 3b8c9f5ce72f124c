"""Graded feedback never raises, grades, and names the mistake."""

import pytest
import torch

from conceptlab.course.checks import (
    check_equal,
    check_true,
    nb00_start_here,
    nb02_sparse_autoencoders,
    nb04_pisces,
    passed,
)

TRUTH = torch.tensor([1.0, -2.0, 4.0])


@pytest.mark.parametrize(
    ("answer", "right", "said"),
    [
        (TRUTH.clone(), True, "exact."),
        ([1.0, -2.0, 4.0], True, "exact."),
        (TRUTH + 1e-5, True, "of the largest value"),
        (TRUTH + 0.1, False, "right shape, wrong values (largest difference 0.1"),
        (-TRUTH, False, "the sign is lost"),
        (TRUTH[:2], False, "shape [2], expected [3]"),
        (TRUTH[None], False, "shape [1, 3], expected [3]"),
        (None, False, "nothing yet"),
        ("text", False, "expected numbers or a tensor, got str"),
        ({"a": 1}, False, "expected numbers or a tensor, got dict"),
        (torch.full((3,), float("nan")), False, "not finite"),
        ([1.0, float("inf"), 4.0], False, "not finite"),
        (TRUTH.requires_grad_(False).clone().requires_grad_(True), True, "exact."),
    ],
)
def test_check_equal(answer, right, said, capsys):
    assert check_equal("values", answer, TRUTH, {"the sign is lost": -TRUTH}) is right
    out = capsys.readouterr().out
    assert said in out and out.startswith("  ok   values: " if right else "  no   values: ")


def test_scalars_integers_and_empty(capsys):
    assert check_equal("n", 3, 3) and check_equal("n", torch.tensor(3), 3.0)
    assert not check_equal("n", 4, 3)
    assert check_equal("none", torch.zeros(0), torch.zeros(0))
    assert check_equal("flags", torch.tensor([True, False]), torch.tensor([1.0, 0.0]))


def test_tolerance_is_relative_to_the_largest_value(capsys):
    assert check_equal("big", torch.tensor([1e6, 1.0]), torch.tensor([1e6, 2.0]), tol=1e-5)
    assert not check_equal("small", torch.tensor([2e-6]), torch.tensor([1e-6]))


def test_mistakes_of_another_shape_are_skipped(capsys):
    assert not check_equal("x", torch.tensor([5.0]), torch.tensor([1.0]), {"wrong": torch.zeros(2), "right": 5.0})
    assert not check_equal("x", torch.tensor([5.0]), torch.tensor([1.0]), {"found": torch.tensor([5.0])})
    assert "found" in capsys.readouterr().out


def test_check_true_and_passed(capsys):
    results = check_true("norm", torch.tensor(True), "divide"), check_true("mean", False, "subtract it")
    passed("Exercise 1", *results)
    passed("Exercise 2", True, True)
    assert capsys.readouterr().out.splitlines() == [
        "  ok   norm: holds.",
        "  no   mean: subtract it",
        "NOT YET: Exercise 1 (1 of 2 checks, 1 of 2 points)",
        "PASSED: Exercise 2 (2 of 2 checks, 2 of 2 points)",
    ]


def _solutions_00():
    def direct_effects(pieces, direction):
        return pieces @ direction / pieces.sum(0).square().mean().sqrt()

    def settles_at(ranks):
        return len(ranks) - (ranks == 0).flip(0).long().cumprod(0).sum(0)

    def per_neuron(neurons, w_down, gain):
        return neurons[:, None] * w_down * gain / (neurons @ w_down).square().mean().sqrt()

    def promoted(activation, value, rows, k):
        return (rows @ (activation * value)).topk(k).indices

    return [direct_effects, settles_at, per_neuron, promoted]


def test_checks_of_notebook_00_name_the_mistake(capsys):
    nb00_start_here.check_direct_effects(lambda pieces, direction: pieces @ direction)
    nb00_start_here.check_settles_at(lambda r: torch.where((r == 0).any(0), (r == 0).int().argmax(0), len(r)))
    nb00_start_here.check_per_neuron(lambda a, w, g: a[:, None] * w * g)
    nb00_start_here.check_promoted(lambda a, v, rows, k: (rows @ v).topk(k).indices)
    out = capsys.readouterr().out
    for said in (
        "nothing is divided",
        "the lens may lose the answer again",
        "the division by the rms",
        "turns it round",
    ):
        assert said in out


# ---- notebook 02 -------------------------------------------------------------------------------------------
def _solutions_02():
    def inference_threshold(batches, k):
        return torch.stack([b.flatten().topk(k * len(b)).values[-1] for b in batches]).mean()

    def pseudo_gradients(z, threshold, width):
        step = -((z - threshold).abs() < width / 2).to(z.dtype) / width
        return threshold * step, step

    def shrunk(a, l1):
        return (a - l1 / 2).relu()

    def mean_max_cosine(truth, found):
        unit = [x / x.norm(dim=1, keepdim=True) for x in (truth, found)]
        return (unit[0] @ unit[1].T).amax(1).mean()

    def unit_norm(W_enc, b_enc, W_dec):
        norms = W_dec.norm(dim=1)
        return W_enc * norms, b_enc * norms, W_dec / norms[:, None]

    return [inference_threshold, pseudo_gradients, shrunk, mean_max_cosine, unit_norm]


def test_checks_of_notebook_02_name_the_mistake(capsys):
    def kernel(z, t, w):
        return ((z - t).abs() < w / 2) / w

    nb02_sparse_autoencoders.check_inference_threshold(
        lambda batches, k: torch.stack([b.topk(k).values[:, -1] for b in batches]).mean()
    )
    nb02_sparse_autoencoders.check_inference_threshold(
        lambda batches, k: batches[-1].flatten().topk(k * len(batches[-1])).values[-1]
    )
    nb02_sparse_autoencoders.check_pseudo_gradients(lambda z, t, w: (kernel(z, t, w), kernel(z, t, w)))
    nb02_sparse_autoencoders.check_pseudo_gradients(lambda z, t, w: (-kernel(z, t, w), -kernel(z, t, w)))
    nb02_sparse_autoencoders.check_pseudo_gradients(lambda z, t, w: (-z * kernel(z, t, w), -kernel(z, t, w)))
    nb02_sparse_autoencoders.check_shrunk(lambda a, l1: (a - l1).relu())
    nb02_sparse_autoencoders.check_shrunk(lambda a, l1: a * (a > l1 / 2))
    nb02_sparse_autoencoders.check_mean_max_cosine(lambda a, b: (a @ b.T).amax(1).mean())
    nb02_sparse_autoencoders.check_mean_max_cosine(
        lambda a, b: torch.cosine_similarity(a[:, None], b[None], -1).amax(0).mean()
    )
    nb02_sparse_autoencoders.check_unit_norm(lambda e, b, d: (e * d.norm(dim=1), b, d / d.norm(dim=1, keepdim=True)))
    out = capsys.readouterr().out
    assert "PASSED" not in out
    for said in (
        "which is TopK's cut",
        "last batch; average",
        "both gradients are negative",
        "height `threshold`",
        "multiplied by z",
        "half of it",
        "a threshold, not a shrinkage",
        "divide by them",
        "found rows were scored",
        "the bias needs the norms",
    ):
        assert said in out


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda e, b, d: (e * d.norm(dim=1), b * d.norm(dim=1), d / d.norm(dim=1, keepdim=True)), "PASSED"),
        (lambda e, b, d: (e, b, d), "W_dec is unchanged"),
        (lambda e, b, d: (e, b, d / d.norm(dim=1, keepdim=True)), "the norms are gone"),
        (lambda e, b, d: (e * d.norm(dim=1), b, d / d.norm(dim=1, keepdim=True)), "the bias needs the norms"),
        (lambda e, b, d: (e, b, d / d.norm(dim=0)), "columns have norm 1"),
        (lambda e, b, d: (e, b, d / d.norm()), "divided by one number"),
        (lambda e, b, d: d, "return W_enc, b_enc, W_dec"),
        (lambda e, b, d: None, "return W_enc, b_enc, W_dec"),
        (lambda e, b, d: e @ e, "RuntimeError"),
    ],
)
def test_check_of_unit_norm(capsys, answer, says):
    nb02_sparse_autoencoders.check_unit_norm(answer)
    out = capsys.readouterr().out
    assert says in out and ("PASSED" in out) == (says == "PASSED")


# ---- notebook 04 -------------------------------------------------------------------------------------------
def _solutions_04():
    def closed_form(sae, rows, f, tau, target):
        e = rows @ sae.W_enc[:, f]
        change = (target - sae.encode(rows)[:, f]) * (e.abs() > tau * e.abs().max())
        return rows + change[:, None] * sae.W_dec[f]

    def norm_side(change, gain):
        return torch.where(gain == 0, 0.0, change / gain)

    return [closed_form, norm_side]


def test_checks_of_notebook_04_name_the_mistake(capsys):
    nb04_pisces.check_norm_side(lambda change, gain: change)
    nb04_pisces.check_norm_side(lambda change, gain: change / gain)
    nb04_pisces.check_scores(lambda b, a, c: a / b, lambda parts: sum(parts) / len(parts))
    nb04_pisces.check_scores(lambda b, a, c: None, lambda parts: 1 / 0)
    out = capsys.readouterr().out
    assert "PASSED" not in out
    for said in (
        "the gain is ignored",
        "not finite",
        "chance is not taken off",
        "arithmetic mean",
        "nothing",
    ):
        assert said in out


@pytest.mark.parametrize(("unknown", "said"), [(float("nan"), "PASSED"), (0.0, "NOT YET"), (1.0, "NOT YET")])
def test_the_scores_of_an_erasure_pass_where_the_unknown_is_not_measurable(capsys, unknown, said):
    def relative(before, after, chance):
        return min(max((after - chance) / (before - chance), 0.0), 1.0) if before > chance else unknown

    nb04_pisces.check_scores(relative, lambda parts: len(parts) / sum(1 / p for p in parts) if all(parts) else 0.0)
    out = capsys.readouterr().out
    assert said in out and ("cannot be measured" in out) == (said != "PASSED")


# ---- every notebook ----------------------------------------------------------------------------------------
SOLUTIONS = {nb00_start_here: _solutions_00(), nb02_sparse_autoencoders: _solutions_02(), nb04_pisces: _solutions_04()}


@pytest.mark.parametrize(
    ("module", "solution"),
    [(module, f) for module, functions in SOLUTIONS.items() for f in functions],
    ids=lambda x: x.__name__.rsplit(".", 1)[-1],
)
def test_a_solution_passes_and_nonsense_does_not(module, solution, capsys):
    check = getattr(module, f"check_{solution.__name__}")
    check(solution)
    assert "PASSED" in capsys.readouterr().out
    for wrong in (lambda *_: None, lambda *_: torch.zeros(3), lambda *_: 1 / 0, lambda *_: "text", lambda: 0):
        check(wrong)
        assert "NOT YET" in capsys.readouterr().out
