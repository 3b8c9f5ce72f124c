"""The checks of notebook 09: solutions pass, usual mistakes are named, nonsense does not stop a notebook."""

import pytest
import torch

from conceptlab.course.checks import nb09_reasoning_or_memory as nb
from conceptlab.course.checks.answers import ANSWERS
from exercises_of_checks import assert_passes_and_nonsense_does_not


def direction(x, positive):
    return x[:, positive].mean(1) - x[:, ~positive].mean(1)


def auroc(scores, positive):
    a, b = scores[positive][:, None], scores[~positive]
    return ((a > b).double() + (a == b).double() / 2).mean()


def shuffled(positive, generator):
    return positive[torch.randperm(len(positive), generator=generator)]


def hold_out(templates):
    masks = [torch.tensor([t == one for t in templates]) for one in dict.fromkeys(templates)]
    return [(~mask, mask) for mask in masks]


def share(matched, naive):
    return (matched - 0.5) / (naive - 0.5)


def equal_energy(h, u, w):
    return h - (h @ u)[..., None] * w


SOLUTIONS = (direction, auroc, shuffled, hold_out, share, equal_energy)


@pytest.mark.parametrize("solution", SOLUTIONS, ids=lambda f: f.__name__)
def test_a_solution_passes_and_nonsense_does_not(solution, capsys):
    assert_passes_and_nonsense_does_not(getattr(nb, f"check_{solution.__name__}"), solution, capsys)


WRONG = [
    ("direction", lambda x, p: -direction(x, p), "turned round"),
    ("direction", lambda x, p: x[:, p].mean(1) - x.mean(1), "not that of all"),
    ("direction", lambda x, p: (x[:, p].sum(1) - x[:, ~p].sum(1)) / x.shape[1], "its own number"),
    ("direction", lambda x, p: torch.nn.functional.normalize(direction(x, p), dim=1), "do not normalise"),
    ("auroc", lambda s, p: (s[p][:, None] > s[~p]).double().mean(), "a tie counts half"),
    ("auroc", lambda s, p: 1 - auroc(s, p), "scoring lower"),
    ("auroc", lambda s, p: max(auroc(s, p), 1 - auroc(s, p)), "below .5 is an answer"),
    ("shuffled", lambda p, g: torch.rand(len(p), generator=g) < 0.3, "toss coins"),
    ("shuffled", lambda p, g: p, "where they were"),
    ("shuffled", lambda p, g: p[torch.randperm(len(p))], "use the generator"),
    ("shuffled", lambda p, g: p.flip(0), "every seed"),
    ("hold_out", lambda t: [(m | True, m) for _, m in hold_out(t)], "both sides"),
    ("hold_out", lambda t: [(b, a) for a, b in hold_out(t)], "tested twice"),
    ("hold_out", lambda t: hold_out(t)[:2], "one pair per template"),
    ("share", lambda m, n: m / n, "count from .5"),
    ("share", lambda m, n: 1 - share(m, n), "what is lost"),
    ("share", lambda m, n: share(m, n).clamp_min(0), "do not cut it off"),
    ("equal_energy", lambda h, u, w: equal_energy(h, u, u), "moves along w"),
    ("equal_energy", lambda h, u, w: equal_energy(h, w, w), "coefficient is that of u"),
    ("equal_energy", lambda h, u, w: 2 * h - equal_energy(h, u, w), "means subtracted"),
]


@pytest.mark.parametrize(("name", "wrong", "said"), WRONG)
def test_wrong_answers_are_named(name, wrong, said, capsys):
    getattr(nb, f"check_{name}")(wrong)
    out = capsys.readouterr().out
    assert "NOT YET" in out and said in out


def test_the_courses_own_answers_pass(capsys):
    for name, check in (
        ("difference of means", nb.check_direction), ("AUROC of a direction", nb.check_auroc),
        ("shuffled labels", nb.check_shuffled), ("held-out templates", nb.check_hold_out),
        ("surviving share", nb.check_share), ("control of equal energy", nb.check_equal_energy),
    ):  # fmt: skip
        assert check(ANSWERS[name]), capsys.readouterr().out
