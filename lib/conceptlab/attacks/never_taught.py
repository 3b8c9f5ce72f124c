"""The never-taught control: facts that no model knows, taught to one copy and not to another, erased in both, attacked.

What the attack brings back in the copy that was never taught is guessing or teaching, not recovery; only what comes
back above it counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ..core import ConceptLabError, Interval, paired_bootstrap
from ..data import Question
from ..edits import WeightEdit, trained_parameters
from ..evaluation import QuestionScores, score_questions
from ..models import LanguageModel
from .base import AttackResult, per_question
from .relearning import RelearnConfig, relearn

# On SmolLM2, 10 steps teach 29 of the 32 facts (before: 5, fewer than by guessing), 20 steps all of them.
TEACHING = RelearnConfig(steps=15, batch_size=16, n_ctx=48, lr=3e-4, weights="mlp")


def teach(lm: LanguageModel, texts: list[str], cfg: RelearnConfig = TEACHING, **changes) -> WeightEdit:
    """The edit that fine-tuning on `texts` amounts to; the model itself stays as it is."""
    cfg = replace(cfg, **changes)
    if cfg.rank is not None:
        raise ConceptLabError("Teaching changes the weights themselves; leave rank=None.")
    before = {n: p.detach().clone() for n, p in trained_parameters(lm, cfg.weights, cfg.layers).items()}
    info = {"method": "taught", "steps": cfg.steps, "lr": cfg.lr}
    return relearn(lm, None, texts, cfg, evaluate=lambda m: WeightEdit.between(m, before, info)).last


@dataclass(frozen=True)
class NeverTaught:
    """Scores of the two copies on the same invented questions."""

    taught: QuestionScores  # before the erasure: the ceiling
    erased: QuestionScores  # the taught copy after it
    attacked: AttackResult  # the attack on that
    never: QuestionScores  # the copy that was never taught, after the same erasure
    never_attacked: AttackResult  # the same attack on that

    def above_control(self, measure: str = "margin", at: int = -1, n_resamples: int = 2_000) -> Interval:
        """Gain of the erased copy under attack minus that of the never-taught copy, mean over questions."""
        a, e, b, n = (
            per_question(x, measure)
            for x in (self.attacked.values[at], self.erased, self.never_attacked.values[at], self.never)
        )
        return paired_bootstrap(a - e, b - n, n_resamples)


def erased_copies(
    lm: LanguageModel, taught: WeightEdit, erase: Callable[[LanguageModel], WeightEdit]
) -> tuple[WeightEdit, WeightEdit]:
    """The edits (teaching included) that lead to the taught and erased copy, and to the one that was only erased.

    `erase(lm)` makes an edit for the model as it is then, the same way for both copies.
    """
    with taught.applied(lm):
        removal = erase(lm)
    return taught + removal, erase(lm)


def never_taught(
    lm: LanguageModel,
    taught: WeightEdit,
    copies: tuple[WeightEdit, WeightEdit],
    attack: Callable[[LanguageModel, WeightEdit], AttackResult],
    questions: tuple[Question, ...],
) -> NeverTaught:
    """Attack both of `erased_copies` in the same way; the attack's values are QuestionScores of `questions`."""
    results = []
    for edit in copies:
        with torch.no_grad(), edit.applied(lm):
            erased = score_questions(lm, questions)
        results.append((erased, attack(lm, edit)))
    with torch.no_grad(), taught.applied(lm):
        ceiling = score_questions(lm, questions)
    return NeverTaught(ceiling, *results[0], *results[1])
