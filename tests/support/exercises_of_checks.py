"""What the check of any exercise must do with its solution and with nonsense."""

import torch

NONSENSE = (lambda *_: None, lambda *_: torch.zeros(3), lambda *_: 1 / 0, lambda *_: "text", lambda: 0)


def assert_passes_and_nonsense_does_not(check, solution, capsys):
    """The solution passes; what is no answer at all is said to be wrong and stops no notebook."""
    check(solution)
    assert "PASSED" in capsys.readouterr().out
    for wrong in NONSENSE:
        check(wrong)
        assert "NOT YET" in capsys.readouterr().out
