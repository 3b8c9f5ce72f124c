"""Candidate sets from inside the network: does a hidden layer still promote the answer that the output withholds?

Patil et al. (arXiv 2309.17410): read the residual stream after every layer at the last token of the prompt through the
final norm and the unembedding. The attack succeeds when the answer is among B candidate tokens. It asks the
questions themselves and uses no answers; those only judge.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError, NotPossible
from ..data import FEW_SHOT, Question, question_stem
from ..edits import Intervention, applied
from ..models import LanguageModel, branch_states
from .base import AttackResult, Cost, Exchange, Hits

READINGS = ("logit_lens", "probability_delta")


@dataclass(frozen=True)
class CandidateConfig:
    """Where the candidates come from, and how many the attacker may hold."""

    kind: str = "logit_lens"  # or probability_delta: the largest rises and falls from one layer to the next
    budgets: tuple[int, ...] = (1, 5, 20, 100)  # B, candidate tokens per question
    layers: tuple[int, ...] | None = None  # whose outputs are read; None: all
    batch_size: int = 16  # questions per forward pass


@torch.no_grad()
def candidate_sets(
    lm: LanguageModel,
    intervention: Intervention | None,
    questions: Sequence[Question],
    cfg: CandidateConfig = CandidateConfig(),
    few_shot: str = FEW_SHOT,
) -> AttackResult:
    """Per budget B: whether the first token of the right answer is among the B candidates (`Hits`).

    Control: whether the first token of *another* question's right answer is; the next one in the list whose token
    differs. Candidates are taken in the order of their best rank over the layers, the later layer first among equals,
    so B = 1 is the output's own first guess. Raises for an unknown kind, budgets below 1 and no layers.
    """
    if cfg.kind not in READINGS:
        raise ConceptLabError(f"Unknown kind of candidates {cfg.kind!r}; choose one of {', '.join(READINGS)}.")
    if not cfg.budgets or min(cfg.budgets) < 1 or cfg.layers == ():
        raise ConceptLabError("Candidate sets need budgets of at least 1 token, and at least one layer.")
    layers = tuple(range(lm.n_layers)) if cfg.layers is None else tuple(lm.check_layer(x) for x in cfg.layers)
    answers = [lm.encode(f" {q.gold}")[0] for q in questions]
    others = [_other(answers, i) for i in range(len(answers))]
    start = time.perf_counter()
    stems = [question_stem(q, few_shot) for q in questions]
    with applied(intervention, lm):
        found = _candidates(lm, few_shot, stems, layers, cfg)
    tokens = sum(map(len, lm.encode_all([few_shot, *stems])))
    cost = Cost(0, tokens, time.perf_counter() - start)
    values, controls = (
        tuple(Hits(torch.tensor([float(t in c[:B]) for t, c in zip(wanted, found, strict=True)])) for B in cfg.budgets)
        for wanted in (answers, others)
    )
    transcript = tuple(
        Exchange(q.id, few_shot + question_stem(q, few_shot), " |".join(lm.words(c[:10])))
        for q, c in zip(questions, found, strict=True)
    )
    return AttackResult(tuple(cfg.budgets), values, (), cost, controls, transcript=transcript)


def _candidates(
    lm: LanguageModel, few_shot: str, stems: Sequence[str], layers: Sequence[int], cfg: CandidateConfig
) -> list[list[int]]:
    """Candidates at the last token of every stem; the few-shot prompt before them is run once."""
    trees = [(stem[:-1], [stem[-1]]) for stem in stems]  # the colon of "Answer:" is a token of its own
    states = branch_states(lm, few_shot, trees, [("resid_post", layer) for layer in layers], cfg.batch_size)
    found = []
    for i in range(len(stems)):  # one question at a time: layers x vocabulary is large
        resid = torch.cat([states["resid_post", layer][i] for layer in layers]).to(lm.device, lm.dtype)
        logits = lm.readout(resid).float()
        scores = logits if cfg.kind == "logit_lens" else probability_deltas(logits)
        found.append(ordered_candidates(scores, max(cfg.budgets)))
    return found


def probability_deltas(logits: Float[Tensor, "layers d_vocab"]) -> Float[Tensor, "readings d_vocab"]:
    """Falls, then rises, of each token's probability from each layer to the next: `2 (layers - 1)` readings."""
    if len(logits) < 2:
        raise ConceptLabError("Probability deltas compare layers; choose at least two.")
    rise = logits.softmax(-1).diff(dim=0)
    return torch.stack([-rise, rise], 1).flatten(0, 1)


def ordered_candidates(scores: Float[Tensor, "readings d_vocab"], k: int) -> list[int]:
    """The first `k` tokens by their best rank over the readings; among equals those of the later reading first."""
    top = scores.topk(min(k, scores.shape[1]), dim=1).indices  # in each reading the k best suffice
    return list(dict.fromkeys(top.flip(0).T.flatten().tolist()))[:k]


def _other(answers: Sequence[int], i: int) -> int:
    for j in range(1, len(answers)):
        if answers[(i + j) % len(answers)] != answers[i]:
            return answers[(i + j) % len(answers)]
    raise NotPossible("Candidate sets need at least two questions whose answers begin with different tokens.")
