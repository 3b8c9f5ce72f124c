"""The checks of notebook 08: solutions pass, usual mistakes are named, nonsense does not stop a notebook."""

import re

import pytest
import torch

from conceptlab.course.checks import nb08_specialisation as nb
from conceptlab.course.checks.answers import ANSWERS
from conceptlab.course.checks.answers_parameters import cut, nearest_in_rank, scores
from exercises_of_checks import assert_passes_and_nonsense_does_not


def matched(chosen, activity):
    return nearest_in_rank(chosen, activity)


def floor(n, m, p):
    generator = torch.Generator().manual_seed(0)
    own = (torch.rand(40_000, n, generator=generator) < p).float().mean(1)
    general = (torch.rand(40_000, m, generator=generator) < p).float().mean(1)
    return float((general - own).abs().mean() / p)


def overlap(masks):
    flat = torch.stack([m.flatten() for m in masks]).double()
    return flat @ flat.T / flat.sum(1, keepdim=True)


def without(text, words):
    if not words:
        return text
    return re.sub(r"\b(" + "|".join(map(re.escape, words)) + r")\b", "it", text, flags=re.I)


SOLUTIONS = (scores, matched, floor, overlap, without, cut)


@pytest.mark.parametrize("solution", SOLUTIONS, ids=lambda f: f.__name__)
def test_a_solution_passes_and_nonsense_does_not(solution, capsys):
    assert_passes_and_nonsense_does_not(getattr(nb, f"check_{solution.__name__}"), solution, capsys)


WRONG = [
    ("scores", lambda a, b: a.mean(0).abs() - b.mean(0).abs(), "do not cancel"),
    ("scores", lambda a, b: a.mean(0) - b.mean(0), "sign is kept"),
    ("scores", lambda a, b: scores(a, b).abs(), "absolute value of the difference"),
    ("scores", lambda a, b: a.abs().sum(0) - b.abs().sum(0), "not sums"),
    ("scores", lambda a, b: a.abs().mean(0), "others are missing"),
    ("matched", lambda c, a: c, "no control for itself"),
    ("matched", lambda c, a: torch.full_like(c, int(a.argmin())), "at most once"),
    ("matched", lambda c, a: a.argsort()[: len(c)] if len(c) == 6 else matched(c, a), "not at random"),
    ("matched", lambda c, a: (matched(c, a), c.zero_())[0], "do not write into"),
    ("floor", lambda n, m, p: 0.0, "noise cancels"),
    ("floor", lambda n, m, p: floor(n, m, p) * p, "divided by the general"),
    ("floor", lambda n, m, p: (p * (1 - p) * (1 / n + 1 / m)) ** 0.5 / p, "standard deviation"),
    ("overlap", lambda ms: overlap(ms).T, "the row"),
    ("overlap", lambda ms: overlap(ms) * torch.stack(list(ms)).flatten(1).sum(1, keepdim=True), "numbers of shared"),
    ("overlap", lambda ms: torch.ones(len(ms), len(ms)), "wrong values"),
    ("without", lambda t, w: re.sub("|".join(w) or "(?!)", "it", t, flags=re.I), "expected"),
    ("without", lambda t, w: " ".join("it" if x in w else x for x in t.split()), "expected"),
    ("without", lambda t, w: re.sub(r"\b(" + "|".join(w) + r")\b", "it", t, flags=re.I) if w else t, "re.escape"),
    ("cut", lambda f, t: 1 - cut(f, t), "return what is kept"),
    ("cut", lambda f, t: 1.0, "wrong values"),
    ("cut", lambda f, t: min((i / 1000 for i in range(1001) if f(i / 1000) <= t + 1e-9), default=1.0), "halve"),
]


@pytest.mark.parametrize(("name", "wrong", "said"), WRONG)
def test_wrong_answers_are_named(name, wrong, said, capsys):
    getattr(nb, f"check_{name}")(wrong)
    out = capsys.readouterr().out
    assert "NOT YET" in out and said in out


def test_the_courses_own_answers_pass(capsys):
    for name, check in (
        ("differential activity", nb.check_scores), ("equally active neurons", nb.check_matched),
        ("noise floor", nb.check_floor), ("overlap", nb.check_overlap),
        ("text without words", nb.check_without), ("cut at equal loss", nb.check_cut),
    ):  # fmt: skip
        assert check(ANSWERS[name]), capsys.readouterr().out
