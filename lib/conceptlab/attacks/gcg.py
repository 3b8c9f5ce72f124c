"""GCG: a suffix of tokens, found by gradients, that makes the changed model answer (Zou et al., arXiv 2307.15043).

One suffix for several questions at once, put behind each question; held-out questions judge it. Per step: the gradient
of the loss by the one-hot vector of every suffix token names promising replacements, a random sample of them is
tried, and the best is kept. Whatever stands before the suffix is run once and kept as keys and values, so a candidate
costs its suffix and the answer only. Tokens of the options of all questions are never used in a suffix.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core import ConceptLabError
from ..data import FEW_SHOT, Question, other_facts, question_stem
from ..edits import Intervention, applied
from ..evaluation import score_questions
from ..models import LanguageModel, prefix_cache, prefix_ids, repeated, rows_that_fit
from .base import AttackResult, Cost, checkpoints, exchanges


@dataclass(frozen=True)
class GCGConfig:
    """The attacker's budget. The released code of PISCES sets 1000 steps, width 64 and top-k 64."""

    steps: int = 20  # replacements
    n_tokens: int = 8  # length of the suffix
    top_k: int = 64  # replacements per position that the gradient proposes
    search_width: int = 64  # candidates tried per step
    batch_size: int = 64  # candidates per forward pass at most; fewer where the GPU's free memory does not hold them
    at: tuple[int, ...] | None = None  # steps after which held-out questions are scored; None: 0 and the last
    seed: int = 0  # of the first suffix and of the sampling


class SuffixObjective:
    """Mean negative log-probability (nats per token) of the right answers behind question, suffix and "Answer:"."""

    def __init__(self, lm: LanguageModel, questions: Sequence[Question], few_shot: str = FEW_SHOT):
        if not questions:
            raise ConceptLabError("A suffix needs at least one question to be optimised on.")
        self.lm, self.embed = lm, lm.embed
        self.parts = []  # per question: keys and values before the suffix, token ids behind it, tokens of the answer
        self.n_head = 0
        for q in questions:
            head, cue = question_stem(q, few_shot).rsplit("\n", 1)
            ids = prefix_ids(lm, few_shot) + lm.encode(head) if few_shot else prefix_ids(lm, head)
            gold = lm.encode(f" {q.gold}")
            self.n_head += len(ids)
            self.parts.append((prefix_cache(lm, ids), lm.encode(f"\n{cue}") + gold, len(gold)))

    def __call__(self, suffix: Float[Tensor, "batch n_tokens d_model"]) -> Float[Tensor, " batch"]:
        """The loss of suffixes given as input embeddings, mean over questions."""
        start = suffix.new_zeros(len(suffix))
        return sum((self._one(suffix, *part) for part in self.parts), start) / len(self.parts)

    def _one(self, suffix: Tensor, cache, tail: list[int], n_gold: int) -> Tensor:
        ids = torch.tensor(tail, device=suffix.device)
        # the last token of the answer predicts nothing
        x = torch.cat([suffix, self.embed(ids[:-1]).expand(len(suffix), -1, -1)], 1)
        hidden = self.lm.final_hidden(embeds=x, past=repeated(cache, len(suffix)))[:, -n_gold:]
        logits, targets = self.lm.head(hidden).float(), ids[-n_gold:].expand(len(suffix), -1)
        return torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none").mean(1)

    @torch.no_grad()
    def losses(self, suffixes: Int[Tensor, "batch n_tokens"], batch_size: int = 64) -> Float[Tensor, " batch"]:
        """The loss of suffixes given as token ids."""
        return torch.cat([self(self.embed(part)) for part in suffixes.split(batch_size)])

    def gradient(self, suffix: Int[Tensor, " n_tokens"], allowed: Int[Tensor, " k"]) -> Float[Tensor, "n_tokens k"]:
        """Gradient of the loss by the one-hot vector of each suffix token, at the tokens `allowed`.

        An embedding is linear in its one-hot vector, so this is the gradient by the embedding times the table; a scale
        of the embeddings (Gemma) is a common factor and left out.
        """
        with torch.enable_grad():
            x = self.embed(suffix[None]).detach().requires_grad_(True)
            (grad,) = torch.autograd.grad(self(x)[0], x)
        return grad[0] @ self.lm.embedding()[allowed].T

    def rows(self, n_tokens: int, most: int) -> int:
        """Candidates that one forward pass can take: `most`, or fewer where a GPU's free memory does not hold them."""
        longest = n_tokens + max(cache.get_seq_length() + len(tail) for cache, tail, _ in self.parts)
        return rows_that_fit(self.lm, longest, most, most)

    def cost(self, n_tokens: int) -> int:
        """Tokens that one candidate runs through the model, over all questions."""
        return sum(n_tokens + len(tail) - 1 for _, tail, _ in self.parts)


@torch.no_grad()
def gcg(
    lm: LanguageModel,
    intervention: Intervention | None,
    facts: Sequence[Question],
    questions: Sequence[Question],
    cfg: GCGConfig = GCGConfig(),
    few_shot: str = FEW_SHOT,
) -> AttackResult:
    """Optimise one suffix on `facts`, score `questions` with it at the steps in `cfg.at`.

    Facts that hold an answer of `questions` are left out. The value at step 0 is that of a random suffix of equal
    length: the control. `losses` are the objective's, after each step; labels are the suffixes.
    """
    facts = other_facts(facts, questions)
    at = checkpoints(cfg.at, cfg.steps)
    if min(cfg.n_tokens, cfg.top_k, cfg.search_width, cfg.batch_size) < 1:
        raise ConceptLabError("GCG needs at least one token in its suffix, and one candidate per step and per batch.")
    allowed = suffix_tokens(lm, (*facts, *questions)).to(lm.device)
    generator = torch.Generator().manual_seed(cfg.seed)
    suffix = allowed[torch.randint(len(allowed), (cfg.n_tokens,), generator=generator).to(lm.device)]
    losses, values, labels, tokens, seconds = [], [], [], 0, 0.0
    with applied(intervention, lm):
        start = time.perf_counter()
        objective = SuffixObjective(lm, facts, few_shot)
        seconds, tokens = time.perf_counter() - start, objective.n_head
        best, least = suffix, torch.inf
        for step in range(cfg.steps + 1):
            if step in at:
                labels.append(suffix_text(lm, best.tolist()))
                values.append(score_questions(lm, with_suffix(questions, labels[-1]), few_shot))
            if step == cfg.steps:
                break
            start = time.perf_counter()
            suffix, loss = gcg_step(objective, suffix, allowed, cfg, generator)
            seconds += time.perf_counter() - start
            tokens += objective.cost(cfg.n_tokens) * (cfg.search_width + 1)
            losses.append(loss)
            if loss < least:
                best, least = suffix, loss
    asked = with_suffix(questions, labels[-1])
    transcript = exchanges(questions, [few_shot + question_stem(q, few_shot) for q in asked], values[-1])
    cost = Cost(cfg.steps, tokens, seconds)
    return AttackResult(at, tuple(values), tuple(losses), cost, (), tuple(labels), transcript)


def gcg_step(
    objective: SuffixObjective,
    suffix: Int[Tensor, " n_tokens"],
    allowed: Int[Tensor, " k"],
    cfg: GCGConfig,
    generator: torch.Generator,
) -> tuple[Int[Tensor, " n_tokens"], float]:
    """The best of `search_width` sampled single replacements, and its loss (it may be above the present one)."""
    gradient = objective.gradient(suffix, allowed)
    top = gradient.topk(min(cfg.top_k, len(allowed)), dim=1, largest=False).indices
    n = cfg.search_width
    where = torch.randint(len(suffix), (n,), generator=generator).to(suffix.device)
    which = torch.randint(top.shape[1], (n,), generator=generator).to(suffix.device)
    candidates = suffix.repeat(n, 1)
    candidates[torch.arange(n, device=suffix.device), where] = allowed[top[where, which]]
    losses = objective.losses(candidates, objective.rows(len(suffix), cfg.batch_size))
    best = int(losses.argmin())
    return candidates[best], float(losses[best])


def suffix_tokens(lm: LanguageModel, questions: Sequence[Question]) -> Int[Tensor, " k"]:
    """Ids of tokens that may stand in a suffix: plain words of letters with a leading space, one token each.

    Such words in a row are split into the same tokens again, so the suffix can be handed on as text. Words of the
    options of `questions` are left out, and so are parts of such words.
    """
    options = " ".join(o.lower() for q in questions for o in q.options)
    kept = [i for i, word in lm.letter_words if word.lower() not in options]
    if not kept:
        raise ConceptLabError(f"{lm.name} has no token that is a plain word outside the options of the questions.")
    return torch.tensor(kept)


def suffix_text(lm: LanguageModel, ids: Sequence[int]) -> str:
    """The text of a suffix, with its leading space (some tokenizers drop that when they decode)."""
    return " " + lm.decode(ids).removeprefix(" ")


def with_suffix(questions: Sequence[Question], suffix: str) -> tuple[Question, ...]:
    """The same questions with `suffix` behind each."""
    return tuple(replace(q, q=q.q + suffix) for q in questions)
