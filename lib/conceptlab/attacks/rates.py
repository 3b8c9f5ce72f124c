"""Learning rates that a model's weights bear, measured on the original: an attack that breaks the model proves nothing.

At 3e-4 two steps of relearning on unrelated text cost the unedited Gemma-3-270M all its margin on dev questions, and
SmolLM2-135M a tenth of it. So a rate belongs to the weights: known ones are looked up by their fingerprint, others are
measured, the largest of a ladder at which the attack's own steps on unrelated text cost at most `MOST` of the margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..core import ConceptLabError
from ..data import Question
from ..evaluation import score_questions
from ..models import LanguageModel
from .relearning import RelearnConfig, relearn

LADDER = (3e-4, 1e-4, 3e-5, 1e-5, 3e-6)
MOST = 0.15  # share of the original's margin that may be lost


@dataclass(frozen=True)
class Rates:
    """AdamW's learning rate for each kind of training."""

    relearn: float = 3e-4
    lora: float = 1e-3
    teach: float = 3e-4
    erase_fiction: float = 1e-4


# Fingerprint of the weights in float32 -> rates
KNOWN = {
    "55ac986201aa3121": Rates(),  # smollm2-135m
    "41d4a1666a18066d": Rates(1e-5, 3e-5, 3e-5, 1e-5),  # gemma3-270m
}


def rates_of(lm: LanguageModel, texts: Sequence[str] = (), questions: Sequence[Question] = (), steps: int = 5) -> Rates:
    """The rates of a model: known ones, or measured on unrelated `texts` by what known `questions` lose.

    Raises ConceptLabError where they are not known and there is nothing to measure them with, or no rate is borne.
    """
    known = KNOWN.get(lm.fingerprint())
    if known is not None:
        return known
    if not texts or not questions:
        raise ConceptLabError(
            f"No learning rate is known for the weights of {lm.name}; give texts and questions to measure one with."
        )
    rate = borne_rate(lm, texts, questions, steps)
    return Rates(rate, 3 * rate, 3 * rate, rate)


def borne_rate(
    lm: LanguageModel,
    texts: Sequence[str],
    questions: Sequence[Question],
    steps: int = 5,
    ladder: Sequence[float] = LADDER,
    most: float = MOST,
) -> float:
    """The largest rate of `ladder` at which `steps` steps on `texts` cost at most `most` of the margin."""
    with torch.no_grad():
        before = float(score_questions(lm, questions).margin.mean())
    if before <= 0:
        raise ConceptLabError(f"{lm.name} knows too little of these questions to measure what an attack costs it.")
    cfg = RelearnConfig(steps=steps, batch_size=6, n_ctx=24)
    for rate in ladder:
        try:
            after = relearn(
                lm, None, texts, cfg, lr=rate, evaluate=lambda m: float(score_questions(m, questions).margin.mean())
            ).last
        except ConceptLabError:  # it diverged
            continue
        if after >= (1 - most) * before:
            return rate
    raise ConceptLabError(
        f"{lm.name} loses more than {most:.0%} of its margin at every learning rate down to {ladder[-1]:g}; "
        "set one with --lr."
    )
