"""Soft prompt: k input embeddings, optimised on some questions and judged by others.

The strongest attack by prompt: embeddings need not belong to any token (Schwinn et al., arXiv 2402.09063). It needs the
weights, and what it can store in k vectors grows with k, so held-out questions and the never-taught control decide.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError
from ..data import FEW_SHOT, Question, other_facts
from ..edits import Intervention, applied
from ..evaluation import score_questions
from ..models import LanguageModel
from .base import AttackResult, Cost, checkpoints
from .gcg import SuffixObjective, suffix_text, suffix_tokens, with_suffix


@dataclass(frozen=True)
class SoftPromptConfig:
    """The attacker's budget."""

    steps: int = 30  # optimisation steps, each over all facts
    n_tokens: int = 4  # k, embeddings behind the question
    lr: float = 1e-2  # Adam, in units of the mean length of a token's embedding over sqrt(d_model)
    at: tuple[int, ...] | None = None  # steps after which held-out questions are scored; None: 0 and the last
    seed: int = 0  # of the words that the embeddings start from


@dataclass(frozen=True)
class SoftPrompt:
    """Embeddings that stand in for words: inside `applied`, wherever the text holds the words the vectors are read."""

    ids: tuple[int, ...]  # the stand-in tokens, words that nothing else uses
    vectors: Float[Tensor, "n_tokens d_model"]

    def applied(self, lm: LanguageModel) -> AbstractContextManager:
        """Hooks the first layer's input; no weight is touched."""
        words = lm.embed(torch.tensor(self.ids, device=lm.device)).detach()

        def hook(x: Tensor) -> Tensor:
            x = x.clone()
            for word, vector in zip(words, self.vectors.to(x), strict=True):
                x[(x == word).all(-1)] = vector
            return x

        return lm.intervene({("resid_pre", 0): hook})


@torch.no_grad()
def soft_prompt(
    lm: LanguageModel,
    intervention: Intervention | None,
    facts: Sequence[Question],
    questions: Sequence[Question],
    cfg: SoftPromptConfig = SoftPromptConfig(),
    few_shot: str = FEW_SHOT,
) -> AttackResult:
    """Optimise k embeddings behind the question on `facts`, score `questions` with them at the steps in `cfg.at`.

    Facts that hold an answer of `questions` are left out. The value at step 0 is that of k random words: the control.
    """
    facts = other_facts(facts, questions)
    at = checkpoints(cfg.at, cfg.steps)
    if cfg.n_tokens < 1 or not cfg.lr > 0:
        raise ConceptLabError(f"A soft prompt needs an embedding and lr > 0; got {cfg.n_tokens} and {cfg.lr:g}.")
    ids = _stand_ins(lm, (*facts, *questions), few_shot, cfg)
    text = suffix_text(lm, ids)
    asked, losses, values, seconds = with_suffix(questions, text), [], [], 0.0
    with applied(intervention, lm):
        objective = SuffixObjective(lm, facts, few_shot)
        # float32 whatever the model's dtype: rounded for each pass, never in between
        x = objective.embed(torch.tensor(ids, device=lm.device)).detach().float().clone().requires_grad_(True)
        scale = float(objective.embed(torch.arange(1000, device=lm.device)).float().pow(2).mean().sqrt())
        optimiser = torch.optim.Adam([x], lr=cfg.lr * scale)
        for step in range(cfg.steps + 1):
            if step in at:
                with SoftPrompt(ids, x.detach().clone()).applied(lm):
                    values.append(score_questions(lm, asked, few_shot))
            if step == cfg.steps:
                break
            start = time.perf_counter()
            with torch.enable_grad():
                loss = objective(x[None].to(lm.dtype))[0]
                optimiser.zero_grad()
                loss.backward()
            optimiser.step()
            losses.append(loss.item())
            if not torch.isfinite(loss):
                raise ConceptLabError(f"The soft prompt diverged at step {step}; lower lr={cfg.lr:g}.")
            seconds += time.perf_counter() - start
    cost = Cost(cfg.steps, objective.n_head + cfg.steps * objective.cost(cfg.n_tokens), seconds)
    return AttackResult(at, tuple(values), tuple(losses), cost)


def _stand_ins(
    lm: LanguageModel, questions: Sequence[Question], few_shot: str, cfg: SoftPromptConfig
) -> tuple[int, ...]:
    """Different words that no question and no example uses."""
    text = " ".join([few_shot, "Question: Answer:", *(f"{q.q} {' '.join(q.options)}" for q in questions)])
    used = {*lm.encode(text), *lm.encode(text.replace("\n", " "))}
    free = [i for i in suffix_tokens(lm, questions).tolist() if i not in used]
    if len(free) < cfg.n_tokens:
        raise ConceptLabError(f"Only {len(free)} words are free to stand for {cfg.n_tokens} embeddings; take fewer.")
    picks = torch.randperm(len(free), generator=torch.Generator().manual_seed(cfg.seed))[: cfg.n_tokens]
    return tuple(free[i] for i in picks.tolist())
