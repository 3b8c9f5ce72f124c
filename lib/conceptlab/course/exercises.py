"""Every exercise of the course: points, difficulty, minutes and, for written ones, the rubric.

The checks look their points up here; `conceptlab progress`, `conceptlab grade` and `make instructor` print it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Exercise:
    """One exercise; its name is unique in the course and is what its check prints."""

    notebook: str  # "00"
    name: str
    points: int
    difficulty: str  # "easy", "medium" or "hard"
    minutes: int
    rubric: tuple[str, ...] = ()  # of a written answer: one point of the answer a line

    @property
    def written(self) -> bool:
        """Whether a person reads the answer."""
        return bool(self.rubric)


EXERCISES: Mapping[str, Exercise] = {
    exercise.name: exercise
    for exercise in (
        Exercise("00", "which part writes the answer", 3, "medium", 10),
        Exercise("00", "where the answer settles", 2, "easy", 8),
        Exercise("00", "what one neuron adds", 3, "medium", 10),
        Exercise("00", "what a neuron promotes on this token", 2, "easy", 6),
        Exercise("00", "the score of an option", 4, "hard", 20),
        Exercise(
            "00", "a blank lens", 3, "medium", 10,
            rubric=(
                "Names at least two places where the fact may be although the lens is blank: another position, "
                "directions that the unembedding does not read, or a form that later layers still have to turn.",
                "Proposes a measurement that does not go through the unembedding (a trained probe, patching the "
                "state into another run, or silencing parts and watching the answer).",
                "Names the control of that measurement (a probe on shuffled labels, a patch from an unrelated "
                "prompt, the same number of random parts).",
            ),
        ),
        Exercise("01", "both ends of a value vector", 2, "easy", 5),
        Exercise("01", "coherence by hand", 2, "easy", 8),
        Exercise("01", "effects in standard deviations", 3, "medium", 10),
        Exercise("01", "clamping a neuron", 3, "medium", 10),
        Exercise("01", "causal validation without the bug", 4, "hard", 20),
        Exercise("02", "BatchTopK's threshold", 3, "medium", 10),
        Exercise("02", "JumpReLU's gradient", 4, "hard", 15),
        Exercise("02", "shrinkage", 2, "easy", 5),
        Exercise("02", "mean max cosine", 2, "easy", 5),
        Exercise("02", "norms into the encoder", 3, "medium", 10),
        Exercise("03", "your label", 2, "easy", 5),
        Exercise("03", "AUROC", 3, "medium", 15),
        Exercise("03", "wrong places", 2, "easy", 10),
        Exercise("03", "hard negatives", 3, "medium", 15),
        Exercise("04", "closed form of the edit", 3, "medium", 15),
        Exercise("04", "inverted sign", 2, "easy", 10),
        Exercise("04", "reach of an edit", 3, "medium", 15),
        Exercise("04", "the right side of the norm", 3, "hard", 15),
        Exercise("04", "scores of an erasure", 3, "medium", 15),
        Exercise("05", "text without answers", 2, "easy", 10),
        Exercise("05", "recovered share", 2, "easy", 10),
        Exercise("05", "LoRA", 3, "medium", 15),
        Exercise("05", "candidate sets", 3, "medium", 15),
        Exercise("05", "rounding", 2, "easy", 10),
        Exercise("07", "length of an answer", 2, "easy", 10),
        Exercise("07", "positions that predict", 2, "easy", 5),
        Exercise("07", "patching a window", 3, "medium", 15),
        Exercise("07", "share taken back", 2, "easy", 5),
        Exercise("07", "distance without a shift", 3, "medium", 10),
        Exercise("07", "difference to a control", 4, "hard", 20),
        Exercise(
            "07", "stored or only hidden", 3, "medium", 15,
            rubric=(
                "Says which result would speak for removal and which for suppression *before* it is measured, in terms "
                "of something that late patching cannot do by itself (early windows, another question form, a probe).",
                "Names a control of equal damage that is not unlearning (a random edit, a random edit of the same "
                "columns, another concept's edit), measured in the same way.",
                "Says what would still be open afterwards: other models, one recipe, facts of one kind, or the answer "
                "being built from other knowledge.",
            ),
        ),
        Exercise("08", "differential activity", 2, "easy", 10),
        Exercise("08", "equally active neurons", 4, "hard", 25),
        Exercise("08", "noise floor", 3, "medium", 15),
        Exercise("08", "overlap", 2, "easy", 10),
        Exercise("08", "text without words", 3, "medium", 15),
        Exercise("08", "cut at equal loss", 3, "medium", 10),
        Exercise("09", "difference of means", 2, "easy", 10),
        Exercise("09", "AUROC of a direction", 2, "easy", 10),
        Exercise("09", "shuffled labels", 2, "easy", 10),
        Exercise("09", "held-out templates", 3, "medium", 15),
        Exercise("09", "surviving share", 3, "medium", 15),
        Exercise("09", "control of equal energy", 4, "hard", 20),
        Exercise("10", "memorised layer", 2, "easy", 10),
        Exercise("10", "reward", 2, "easy", 10),
        Exercise("10", "exact gradient", 4, "hard", 25),
        Exercise("10", "advantages", 3, "medium", 15),
        Exercise("10", "alignment", 2, "medium", 15),
        Exercise("10", "dealt depths", 2, "medium", 10),
    )
}  # fmt: skip


def exercises_of(notebook: str) -> list[Exercise]:
    """The exercises of one notebook ("00"), in the order of the page."""
    return [exercise for exercise in EXERCISES.values() if exercise.notebook == notebook]


def possible_points(name: str, n_checks: int) -> float:
    """The points of an exercise; one per check for one that is not in the list."""
    return float(EXERCISES[name].points) if name in EXERCISES else float(n_checks)
