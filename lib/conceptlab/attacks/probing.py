"""Probing: can a linear reader tell right from wrong answers by hidden states of a model that no longer says them?

The probe is trained on other facts. Each option stands as an answer after its question; its features are the residual
stream at its last token, minus the mean over the options of the same question, so that only what sets them apart
counts. Ridge regression on right (1) against wrong (0) has a closed form and no seed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core import ConceptLabError
from ..data import FEW_SHOT, Question, other_facts, question_stem
from ..edits import Intervention, applied
from ..evaluation import QuestionScores
from ..models import LanguageModel, branch_states
from .base import AttackResult, Cost, Hits


@dataclass(frozen=True)
class ProbeConfig:
    """Where the probe reads, and how it is chosen."""

    layers: tuple[int, ...] | None = None  # outputs of these layers; None: every third, and the last
    ridges: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)  # penalties, in units of the mean feature variance
    folds: int = 5  # of the cross-validation over training questions that chooses the penalty
    shuffles: int = 20  # draws of random labels that the control is the mean of
    seed: int = 0  # of the folds, and of the control's labels

    def __post_init__(self) -> None:
        if self.folds < 2 or self.shuffles < 1 or not self.ridges or self.layers == ():
            raise ConceptLabError("A probe needs at least one layer, one penalty, two folds and one shuffle.")


@dataclass(frozen=True)
class RandomLabels(Hits):
    """The control: `values` is per question the share of probes trained on random labels that are right."""

    scores: Float[Tensor, "shuffles n options"]  # what each of them gives to every option


@torch.no_grad()
def probe(
    lm: LanguageModel,
    intervention: Intervention | None,
    facts: Sequence[Question],
    questions: Sequence[Question],
    cfg: ProbeConfig = ProbeConfig(),
    few_shot: str = FEW_SHOT,
) -> AttackResult:
    """Per layer: the probe's score of every option of `questions`, as `QuestionScores` (no log-probabilities then).

    Facts that hold a tested answer are not trained on. `losses` is 1 minus the cross-validated accuracy on the facts,
    by which an attacker would choose the layer (`best_layer`). Control: probes of `RandomLabels`. Raises for fewer
    facts than folds, and for questions with different numbers of options.
    """
    facts = other_facts(facts, questions)
    if len(facts) < cfg.folds or len({len(q.options) for q in (*facts, *questions)}) != 1:
        raise ConceptLabError(
            f"A probe needs at least {cfg.folds} facts that hold no tested answer ({len(facts)} are left), and the "
            "same number of options everywhere."
        )
    layers = tuple(sorted({*range(0, lm.n_layers, 3), lm.n_layers - 1})) if cfg.layers is None else cfg.layers
    layers = tuple(lm.check_layer(layer) for layer in layers)
    start = time.perf_counter()
    with applied(intervention, lm):
        features = option_features(lm, (*facts, *questions), layers, few_shot)
    truth, asked = (torch.tensor([q.answer for q in part]) for part in (facts, questions))
    generator = torch.Generator().manual_seed(cfg.seed)
    shuffled = torch.randint(len(facts[0].options), (cfg.shuffles, len(truth)), generator=generator)
    values, controls, losses = [], [], []
    for layer in layers:
        train, test = features[layer].split([len(facts), len(questions)])
        spread = train.flatten(0, 1).std(0).clamp_min(1e-12)  # a few dimensions are a hundred times larger than others
        train, test = train / spread, test / spread
        direction, error, ridge = cross_validated_probe(train, truth, cfg)
        values.append(QuestionScores((test @ direction).float(), asked))
        losses.append(error)
        noise = (test @ ridge_probe(train, shuffled, ridge).T).permute(2, 0, 1).float()
        controls.append(RandomLabels((noise.argmax(-1) == asked).float().mean(0), noise))
    tokens = sum(map(len, lm.encode_all(f"{q.q} {' '.join(q.options)}" for q in (*facts, *questions))))
    cost = Cost(0, tokens, time.perf_counter() - start)
    return AttackResult(layers, tuple(values), tuple(losses), cost, tuple(controls))


def best_layer(result: AttackResult) -> int:
    """Index of the layer with the least cross-validated error: a choice that uses no tested question."""
    return min(range(len(result.losses)), key=result.losses.__getitem__)


def option_features(
    lm: LanguageModel, questions: Sequence[Question], layers: Sequence[int], few_shot: str = FEW_SHOT
) -> dict[int, Float[Tensor, "n options d_model"]]:
    """Per layer: the residual stream at the last token of each option, minus its mean over the question's options."""
    trees = [(question_stem(q, few_shot), [f" {o}" for o in q.options]) for q in questions]
    states = branch_states(lm, few_shot, trees, [("resid_post", layer) for layer in layers])
    stacked = {layer: torch.stack(states["resid_post", layer]).double() for layer in layers}
    return {layer: x - x.mean(1, keepdim=True) for layer, x in stacked.items()}


def ridge_probe(
    X: Float[Tensor, "n options d"], labels: Int[Tensor, "*draws n"], ridge: float
) -> Float[Tensor, "*draws d"]:
    """The direction w that minimises `|X w - y|^2 + lambda |w|^2`; y is 1 at the right option, centred per question.

    `lambda = ridge * (sum of squares of X) / d`: the penalty in units of the mean feature's sum of squares.
    """
    options, d = X.shape[1:]
    y = torch.nn.functional.one_hot(labels, options).to(X) - 1 / options
    flat = X.reshape(-1, d)
    gram = flat.T @ flat
    penalty = ridge * gram.diagonal().mean().clamp_min(1e-30)
    by_target = flat.T @ y.flatten(-2).movedim(-1, 0)
    return torch.linalg.solve(gram + penalty * torch.eye(d).to(gram), by_target).movedim(0, -1)


def cross_validated_probe(
    X: Float[Tensor, "n options d"], labels: Int[Tensor, " n"], cfg: ProbeConfig
) -> tuple[Float[Tensor, " d"], float, float]:
    """The probe on all facts with the penalty of the least cross-validated error; that error (share wrong), and it."""
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(cfg.seed))
    errors = []
    for ridge in cfg.ridges:
        wrong = 0
        for fold in order.chunk(cfg.folds):
            rest = torch.ones(len(X), dtype=torch.bool)
            rest[fold] = False
            w = ridge_probe(X[rest], labels[rest], ridge)
            wrong += int(((X[fold] @ w).argmax(1) != labels[fold]).sum())
        errors.append(wrong / len(X))
    best = min(range(len(errors)), key=errors.__getitem__)
    return ridge_probe(X, labels, cfg.ridges[best]), errors[best], cfg.ridges[best]
