"""The checks of notebook 07: solutions pass, usual mistakes are named, nonsense does not stop a notebook."""

import pytest
import torch

from conceptlab.course import EXERCISES, Points, exercises_of
from conceptlab.course.checks import answers_dissection as answers
from conceptlab.course.checks import check_written, use
from conceptlab.course.checks import nb07_dissecting as nb
from exercises_of_checks import assert_passes_and_nonsense_does_not

SOLUTIONS = {
    "length of an answer": "answer_length",
    "positions that predict": "predicting",
    "patching a window": "patch_hooks",
    "share taken back": "taken_back",
    "distance without a shift": "shift_free",
    "difference to a control": "share_gaps",
}


def test_every_exercise_has_a_check_and_an_answer():
    graded = [e.name for e in exercises_of("07") if not e.written]
    assert (
        graded == list(SOLUTIONS)
        and graded == [n for n in answers.ANSWERS if n in graded]
        or set(answers.ANSWERS) == set(graded)
    )
    assert [e.difficulty for e in exercises_of("07")].count("hard") == 1


@pytest.mark.parametrize("name", SOLUTIONS)
def test_a_solution_passes_and_nonsense_does_not(name, capsys):
    check = getattr(nb, f"check_{SOLUTIONS[name]}")
    solution = answers.ANSWERS[name]
    assert_passes_and_nonsense_does_not(check, solution, capsys)
    points = check(solution)
    assert points and points.possible == EXERCISES[name].points
    assert use(points, len) is len and use(Points(name, 0, 1), len) is solution


def late(kept, first, last):
    hooks = {}
    for layer in range(first, last + 1):
        hooks["neurons", layer] = lambda _x: kept[layer]  # noqa: B023 (the mistake)
    return hooks


def ratios(t, u, tc, uc, picks):
    return (tc / uc)[picks].mean(1) - (t / u)[picks].mean(1)


def gap(z, z0):
    return z - z0


WRONG = [
    ("answer_length", lambda row, w, end: len(row) - row.count(end) - w, "released code"),
    ("answer_length", lambda row, w, end: len(row) - w, "first end of text"),
    ("answer_length", lambda row, w, end: len(row) - row.count(end), "does not belong"),
    ("predicting", lambda n, m: list(range(n, n + m)), "off by one"),
    ("predicting", lambda n, m: list(range(m)), "of the prompt"),
    ("predicting", lambda n, m: list(range(n - 1, n + m)), "expected"),
    ("shift_free", lambda z, z0: gap(z, z0).square().mean(-1), "raw distance"),
    ("shift_free", lambda z, z0: (gap(z, z0) - gap(z, z0).mean(0)).square().mean(-1), "not over the positions"),
    ("shift_free", lambda z, z0: gap(z, z0).var(-1), "not by one less"),
    ("shift_free", lambda z, z0: gap(z, z0).var(-1, correction=0).mean(), "expected"),
    ("patch_hooks", late, "looks its variable up"),
    ("patch_hooks", lambda kept, a, b: {("neurons", i): lambda x, k=kept[i]: x + k for i in range(a, b)}, "included"),
    ("patch_hooks", lambda kept, a, b: {("neurons", i): lambda x: x for i in range(a, b + 1)}, "its own layer"),
    ("patch_hooks", lambda kept, a, b: [kept[i] for i in range(a, b + 1)], "dictionary"),
    ("taken_back", lambda t, u: 1 - (t / u).mean(), "own shares"),
    ("taken_back", lambda t, u: t.mean() / u.mean(), "what is left"),
    ("taken_back", lambda t, u: u.mean() - t.mean(), "that is a difference"),
    ("share_gaps", ratios, "mean of ratios"),
    ("share_gaps", lambda t, u, tc, uc, p: -answers.share_gaps(t, u, tc, uc, p), "edit minus control"),
    ("share_gaps", lambda t, u, tc, uc, p: answers.share_gaps(t, u, tc[p[0]], uc[p[0]], p), "wrong values"),
    ("share_gaps", lambda t, u, tc, uc, p: (tc - t)[p].mean(1) / u[p].mean(1), "own denominator"),
]


@pytest.mark.parametrize(("name", "wrong", "said"), WRONG)
def test_wrong_answers_are_named(name, wrong, said, capsys):
    getattr(nb, f"check_{name}")(wrong)
    out = capsys.readouterr().out
    assert "NOT YET" in out and said in out


def test_the_written_answer_is_kept_with_its_rubric(capsys):
    check_written("stored or only hidden", "word " * 40)
    assert "control of equal damage" in capsys.readouterr().out
    assert torch.equal(answers.shift_free(torch.ones(2, 3), torch.zeros(2, 3)), torch.zeros(2))
