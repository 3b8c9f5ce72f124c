"""The checks of notebook 11: the course's answers pass, usual mistakes are named, nonsense does not stop a notebook."""

import math

import pytest
import torch

from conceptlab.course import EXERCISES, exercises_of
from conceptlab.course.cases import cases
from conceptlab.course.checks import answers_controls as own
from conceptlab.course.checks import nb11_is_it_fake as nb
from exercises_of_checks import assert_passes_and_nonsense_does_not

NAMES = ("share_above", "imposter", "wilson", "share_back", "within")
ANSWER = {"share_above": "above_controls"}  # a room has a function of the exercise's name


@pytest.mark.parametrize("name", NAMES)
def test_a_solution_passes_and_nonsense_does_not(name, capsys):
    assert_passes_and_nonsense_does_not(getattr(nb, f"check_{name}"), getattr(own, ANSWER.get(name, name)), capsys)


def rescaled(left, right, others, generator):
    drawn = others[torch.randperm(len(others), generator=generator)[: left.shape[1]]]
    made = drawn.T * left.norm(dim=0)
    return made * (left @ right).norm() / (made @ right).norm()


def unscaled(left, right, others, generator):
    made = own.imposter(left, right, others, generator)
    return made / made.norm(dim=0) * left.norm(dim=0)


def wald(right, n):
    half = own.Z * math.sqrt(right / n * (1 - right / n) / n)
    return right / n - half, right / n + half


def strict_gate(original, erased, after):
    """Where nothing was lost at all, the gap is not *below* two standard errors: 0 / 0."""
    gap = original - erased
    if gap.mean() < 2 * gap.std() / len(gap) ** 0.5:
        return float("nan")
    return float((after - erased).mean() / gap.mean())


def no_gate(original, erased, after):
    return float((after - erased).mean() / (original - erased).mean())


def all_pairs(scores, positive, surface):
    return own.within(scores, positive, torch.zeros_like(surface))


WRONG = [
    ("share_above", lambda s, c, q: c.quantile(q), "that is the limit"),
    ("share_above", lambda s, c, q: (s > s.quantile(q)).float().mean(), "not from the scores"),
    ("share_above", lambda s, c, q: (s > c.mean()).float().mean(), "quantile"),
    ("share_above", lambda s, c, q: (s > c.quantile(q)).sum(), "no share"),
    ("imposter", lambda a, b, o, g: a, "rows of `others`"),
    ("imposter", rescaled, "leave out"),
    ("imposter", unscaled, "the norm of the edit"),
    ("imposter", lambda a, b, o, g: own.imposter(a, b, o, torch.Generator().manual_seed(0)), "generator given"),
    ("imposter", lambda a, b, o, g: own.imposter(a / a.norm(dim=0), b, o, g) * 1.0, "a column is as long"),
    ("wilson", wald, "no width at 0"),
    ("wilson", lambda r, n: tuple(x * (1 + own.Z**2 / n) for x in own.wilson(r, n)), "is missing"),
    ("wilson", lambda r, n: own.wilson(r, n)[::-1], "wrong values"),
    ("share_back", no_gate, "nothing to have a share of"),
    ("share_back", strict_gate, "an unedited model has lost 0"),
    ("share_back", lambda o, e, a: float((o - a).mean() / (o - e).mean()), "counts from the erased"),
    ("share_back", lambda o, e, a: float((a - e).mean() / o.mean()), "not by the original"),
    ("within", all_pairs, "only pairs of equal surface"),
    ("within", lambda s, p, x: 1 - own.within(s, p, x), "scoring lower"),
    ("within", lambda s, p, x: own.within(s, p, x) if len(s) > 4 else 0.5, "return nan"),
]


@pytest.mark.parametrize(("name", "wrong", "said"), WRONG)
def test_wrong_answers_are_named(name, wrong, said, capsys):
    assert not getattr(nb, f"check_{name}")(wrong)
    out = capsys.readouterr().out
    assert "NOT YET" in out and said in out


def test_the_check_of_a_choice(capsys):
    known = cases()
    right = {name: (case.deciding[0], case.truth) for name, case in known.items()}
    assert nb.check_choice(right, known)
    blind = {name: (list(case.menu)[-1], case.truth) for name, case in known.items()}
    turned = {name: (case.deciding[0], not case.truth) for name, case in known.items()}
    for wrong in (blind, turned, {}, None, dict.fromkeys(known, "text"), right | {"head": ("the moon", False)}):
        assert not nb.check_choice(wrong, known)
    assert "not on the menu" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(3))
def test_the_deciding_controls_tell_what_is_true_and_the_others_do_not_differ_from_it_by_chance(seed):
    for case in cases(seed).values():
        for control in case.deciding:
            gap = case.number.value - case.run(control).value
            assert (gap > 0.15) == case.truth or (control.startswith("texts") and gap > 0.15)
    assert all(len(case.menu) == 4 for case in cases(seed).values())


def test_every_exercise_of_11_is_in_the_list_with_its_answer():
    names = [e.name for e in exercises_of("11")]
    assert 5 <= len(names) <= 7 and set(own.ANSWERS) <= set(names)
    assert EXERCISES["the experiment that would decide"].written
