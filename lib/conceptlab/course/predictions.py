"""A guess written down before the run, and what became of it."""

from __future__ import annotations

from .record import keep


def predict(name: str, guess: float | int | str | None) -> None:
    """Write a prediction down (a number, or a few words); None leaves the page empty, and nobody is told off."""
    if guess is None:
        print(f"{name}: nothing written down. Put your guess into the cell above and run it again: it costs a minute.")
        return
    keep(f"prediction: {name}", prediction=guess)
    print(f"{name}: you wrote down {guess}.")


def recall_guess(name: str, guess: float | int | str | None, measured: object, reading: str = "") -> None:
    """Put the guess beside what was measured; `reading`: one sentence on what a gap between them would mean."""
    wrote = "you wrote nothing down" if guess is None else f"you wrote {guess}"
    if guess is not None:
        keep(f"prediction: {name}", prediction=guess, measured=str(measured))
    print(f"{name}: {wrote}; measured {measured}. {reading}".rstrip())
