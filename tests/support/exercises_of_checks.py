"""What the check of any exercise must do with its solution and with nonsense."""

import torch

from conceptlab.course import EXERCISES
from conceptlab.course.checks.answers import ANSWERS

NONSENSE = (lambda *_: None, lambda *_: torch.zeros(3), lambda *_: 1 / 0, lambda *_: "text", lambda: 0)


def assert_passes_and_nonsense_does_not(check, solution, capsys):
    """The solution passes; what is no answer at all is said to be wrong and stops no notebook."""
    check(solution)
    assert "PASSED" in capsys.readouterr().out
    for wrong in NONSENSE:
        check(wrong)
        assert "NOT YET" in capsys.readouterr().out


def assert_right_and_wrong(name, check, wrong, said, capsys):
    """The course's answer gets all points; three or more wrong ones do not, are told why, and stop no notebook."""
    points = check(ANSWERS[name])
    assert points and points.earned == points.possible == EXERCISES[name].points, capsys.readouterr().out
    assert len(wrong) >= 3
    for i, answer in enumerate(wrong):
        points = check(answer)
        assert not points and points.earned < points.possible, f"wrong answer {i} passes"
    out = capsys.readouterr().out
    for words in said:
        assert words in out
    for nonsense in NONSENSE:
        assert not check(nonsense)
