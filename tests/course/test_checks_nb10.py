"""The checks of notebook 10: solutions pass, usual mistakes are named, nonsense does not stop a notebook."""

import pytest
import torch

from conceptlab.course.checks import nb10_early_exit as nb
from exercises_of_checks import assert_passes_and_nonsense_does_not


def memorised(correct):
    n = correct.shape[1]
    return (n - correct.flip(1).long().cumprod(1).sum(1) + 1).clamp(max=n)


def exit_distribution(p):
    going = torch.cat([torch.ones(len(p), 1), (1 - p[:, :-1]).cumprod(1)], 1)
    return torch.cat([p[:, :-1], torch.ones(len(p), 1)], 1) * going


def gradient(s, R):
    out, value, going, p = torch.zeros_like(s), R[:, -1], torch.ones_like(R[:, 0]), s.sigmoid()
    reach = []
    for t in range(s.shape[1]):
        reach.append(going)
        going = going * (1 - p[:, t])
    for t in reversed(range(s.shape[1] - 1)):
        out[:, t] = reach[t] * p[:, t] * (1 - p[:, t]) * (R[:, t] - value)
        value = p[:, t] * R[:, t] + (1 - p[:, t]) * value
    return out


def rewards(losses, alpha, ml):
    n = losses.shape[1]
    return -losses - alpha * (1 - ml / n)[:, None] * torch.arange(1, n + 1)


def advantages(R):
    return R - (R.sum(0) - R) / (len(R) - 1)


def aligned(values, losses):
    kept = values[:, :-1]
    return torch.stack([kept, losses.view(kept.shape)], -1)


def dealt(correct, depth):
    share = torch.bincount(depth - 1, minlength=correct.shape[1]).float() / len(depth)
    return correct.float() @ share


SOLUTIONS = (memorised, gradient, rewards, advantages, aligned, dealt)


@pytest.mark.parametrize("solution", SOLUTIONS, ids=lambda f: f.__name__)
def test_a_solution_passes_and_nonsense_does_not(solution, capsys):
    assert_passes_and_nonsense_does_not(getattr(nb, f"check_{solution.__name__}"), solution, capsys)


WRONG = [
    ("memorised", lambda c: torch.where(c.any(1), c.int().argmax(1) + 1, c.shape[1]), "may lose the answer again"),
    ("memorised", lambda c: memorised(c) - 1, "count from 1"),
    ("memorised", lambda c: c.sum(1), "not how many"),
    ("gradient", lambda s, R: -gradient(s, R), "descends"),
    ("gradient", lambda s, R: R, "wrong values"),
    (
        "gradient",
        lambda s, R: exit_distribution(s.sigmoid()) * (R - (exit_distribution(s.sigmoid()) * R).sum(1, keepdim=True)),
        "softmax rule",
    ),
    (
        "gradient",
        lambda s, R: (
            torch.cat([exit_distribution(s.sigmoid())[:, :-1], exit_distribution(s.sigmoid())[:, -1:]], 1)
            * (1 - s.sigmoid())
            * R
        ),
        "going on is missing",
    ),
    ("rewards", lambda x, a, ml: -x, "released code"),
    ("rewards", lambda x, a, ml: rewards(x, a, torch.zeros_like(ml)), "hardness is missing"),
    ("rewards", lambda x, a, ml: rewards(x, a, x.shape[1] - ml), "easy items"),
    ("rewards", lambda x, a, ml: -x + (-x - rewards(x, a, ml)), "lowers the reward"),
    ("advantages", lambda R: R - R.mean(0), "own reward is in the baseline"),
    ("advantages", lambda R: R, "no baseline"),
    ("advantages", lambda R: R - R.mean(1, keepdim=True), "not over items"),
    ("advantages", lambda R: (R - R.mean(0)) / R.std(0), "standard deviation"),
    (
        "aligned",
        lambda v, x: torch.stack([v.flatten()[: len(x)], x], 1).view(len(v), v.shape[1] - 1, 2),
        "off by b tokens",
    ),
    ("aligned", lambda v, x: torch.stack([v[:, 1:], x.view(v[:, 1:].shape)], -1), "drop the last"),
    ("aligned", lambda v, x: torch.stack([x.view(v[:, 1:].shape), v[:, :-1]], -1), "wrong values"),
    ("dealt", lambda c, d: c.float().gather(1, d[:, None] - 1)[:, 0], "nothing was dealt"),
    ("dealt", lambda c, d: c.float().mean(1), "same share"),
    ("dealt", lambda c, d: c.float()[:, int(d.float().mean()) - 1], "not a mixture"),
    ("dealt", lambda c, d: c.float() @ (torch.bincount(d, minlength=c.shape[1])[: c.shape[1]] / len(d)), "column"),
]


@pytest.mark.parametrize(("name", "wrong", "said"), WRONG)
def test_wrong_answers_are_named(name, wrong, said, capsys):
    getattr(nb, f"check_{name}")(wrong)
    out = capsys.readouterr().out
    assert "NOT YET" in out and said in out
