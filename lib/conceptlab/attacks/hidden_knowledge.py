"""Hidden knowledge: does the inside of a model rank answers better than what it says? (Inside-Out, arXiv 2503.15299)

For every question and every pair of its right and a wrong answer: which of the two is ranked higher, by what the model
says (external) and by a linear probe of its hidden states (internal)? K is the share of pairs ranked right. Knowledge
is hidden where internal K exceeds external K.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError, Interval, paired_bootstrap
from ..data import FEW_SHOT, Question, question_stem
from ..edits import Intervention, applied
from ..models import LanguageModel, branch_logprobs
from .base import AttackResult
from .probing import ProbeConfig, best_layer, probe

JUDGE = ' {answer}\nIs that answer right, "Yes" or "No"?\nVerdict:'


@dataclass(frozen=True)
class HiddenKnowledge:
    """Per question the share of (right, wrong) pairs ranked right, for each way of ranking."""

    internal: Float[Tensor, " n"]  # by the probe
    external: dict[str, Float[Tensor, " n"]]  # by log-probability, the same per token, and the model's own verdict
    layer: int  # that the probe reads, chosen on the facts

    def gap(self, scorer: str, n_resamples: int = 2_000, seed: int = 0) -> Interval:
        """Internal minus external K, with its interval over questions."""
        if scorer not in self.external:
            raise ConceptLabError(f"Unknown scorer {scorer!r}; there are {', '.join(self.external)}.")
        return paired_bootstrap(self.internal, self.external[scorer], n_resamples, seed)


def pair_ranks(scores: Float[Tensor, "n options"], answers: Tensor) -> Float[Tensor, " n"]:
    """Per question the share of wrong options that score below the right one; ties count half."""
    gold = scores.gather(1, answers[:, None])
    below = (gold > scores).double() + (gold == scores).double() / 2
    return ((below.sum(1) - 0.5) / (scores.shape[1] - 1)).float()  # the right option ties with itself


@torch.no_grad()
def hidden_knowledge(
    lm: LanguageModel,
    intervention: Intervention | None,
    facts: Sequence[Question],
    questions: Sequence[Question],
    cfg: ProbeConfig | None = None,
    few_shot: str = FEW_SHOT,
) -> AttackResult:
    """One value, a `HiddenKnowledge`; the probe is trained on `facts` and its layer chosen on them (see `probe`).

    Control: the same with probes of random labels, the mean over them. External scorers: `logprob` (of the whole
    answer), `per_token` (the scorecard's measure) and `verdict` (log-probability of Yes minus No).
    """
    inside = probe(lm, intervention, facts, questions, cfg or ProbeConfig(), few_shot)
    best = best_layer(inside)
    with applied(intervention, lm):
        external = external_scores(lm, questions, few_shot)
    answers = torch.tensor([q.answer for q in questions])
    ranks = {name: pair_ranks(table, answers) for name, table in external.items()}

    def result(*tables: Tensor) -> HiddenKnowledge:
        mean = torch.stack([pair_ranks(table, answers) for table in tables]).mean(0)
        return HiddenKnowledge(mean, ranks, inside.steps[best])

    return AttackResult(
        (inside.steps[best],), (result(inside.values[best].logprobs),), (inside.losses[best],), inside.cost,
        (result(*inside.controls[best].scores),),
    )  # fmt: skip


def external_scores(
    lm: LanguageModel, questions: Sequence[Question], few_shot: str = FEW_SHOT
) -> dict[str, Float[Tensor, "n options"]]:
    """What the model itself says about every option, by three measures (nats)."""
    stems = [question_stem(q, few_shot) for q in questions]
    found = branch_logprobs(
        lm, few_shot, [(s, [f" {o}" for o in q.options]) for s, q in zip(stems, questions, strict=True)]
    )
    asked = [
        (s + JUDGE.format(answer=o), [" Yes", " No"]) for s, q in zip(stems, questions, strict=True) for o in q.options
    ]
    verdicts = torch.tensor([float(yes.sum() - no.sum()) for yes, no in branch_logprobs(lm, few_shot, asked)])
    return {
        "logprob": torch.tensor([[float(b.sum()) for b in row] for row in found]),
        "per_token": torch.tensor([[float(b.mean()) for b in row] for row in found]),
        "verdict": verdicts.view(len(questions), -1),
    }
