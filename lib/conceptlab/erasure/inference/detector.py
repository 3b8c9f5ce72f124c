"""Which prompts are about the concept: logistic regression on the model's own states, averaged over a prompt's tokens.

ECO and GUARD train a classifier of prompts beside the model (a RoBERTa, a small MLP on sentence embeddings). Here it
reads the states of the model's own layer at a third of its depth, which costs a third of a pass over the prompt. It is
fitted on prompts that no strength is chosen on: the shown facts about the concept and its leads, against questions on
the neighbour, general ones and other leads. Its threshold lets through all but `alarm` of the others, in
cross-validation, and never less than even odds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...core import ConceptLabError
from ...data import FEW_SHOT, Question, question_stem
from ...models import LanguageModel, Prompt, Reading, unguarded

if TYPE_CHECKING:
    from ..shared import Shared


@dataclass(frozen=True)
class DetectorConfig:
    """How it is fitted."""

    depth: float = 1 / 3  # of the layer that is read, as a share of all layers
    ridge: float = 1e-2  # weight of |w|^2 against the mean loss
    alarm: float = 0.02  # share of prompts about other things that may be flagged in cross-validation
    folds: int = 5
    n_ctx: int = 32  # tokens of a lead that are read
    n_texts: int = 40  # leads of each kind


@dataclass(frozen=True)
class Detector:
    """Flags a prompt where `w . (features - mean) / spread + b > threshold`."""

    layer: int
    mean: Float[Tensor, " d_model"]
    spread: Float[Tensor, " d_model"]
    w: Float[Tensor, " d_model"]
    b: float
    threshold: float

    def scores(self, lm: LanguageModel, prompts: Sequence[Prompt]) -> Float[Tensor, " n"]:
        """Log odds that a prompt is about the concept."""
        return self.of_features(prompt_features(lm, prompts, self.layer))

    def of_features(self, features: Float[Tensor, "n d_model"]) -> Float[Tensor, " n"]:
        return ((features - self.mean) / self.spread) @ self.w + self.b

    def flags(self, lm: LanguageModel, prompts: Sequence[Prompt]) -> Bool[Tensor, " n"]:
        return self.scores(lm, prompts) > self.threshold

    def watch(self, lm: LanguageModel) -> Callable[[Reading], Bool[Tensor, " n"]]:
        """Flags of a pass' rows, each prompt looked at once as long as the returned function lives."""
        seen: dict[Prompt, bool] = {}

        def flags(reading: Reading) -> Bool[Tensor, " n"]:
            new = [p for p in dict.fromkeys(reading.prompts) if p not in seen]
            if new:
                seen.update(zip(new, self.flags(lm, new).tolist(), strict=True))
            return torch.tensor([seen[p] for p in reading.prompts], device=lm.device)

        return flags


@torch.no_grad()
def prompt_features(
    lm: LanguageModel, prompts: Sequence[Prompt], layer: int, batch_size: int = 32
) -> Float[Tensor, "n d_model"]:
    """The layer's output, mean over the prompt's tokens. The first token is left out: it holds the attention sink."""
    found = []
    with unguarded(lm):
        for i in range(0, len(prompts), batch_size):
            ids, mask = lm.pad([list(p) for p in prompts[i : i + batch_size]])
            states = lm.capture(ids, [("resid_post", layer)], mask)["resid_post", layer].float()
            counted = mask & ((torch.arange(mask.shape[1], device=mask.device) > 0) | (mask.sum(1, keepdim=True) == 1))
            found.append((states * counted[..., None]).sum(1) / counted.sum(1, keepdim=True))
    return torch.cat(found).cpu()


def fit_logistic(
    X: Float[Tensor, "n d"], y: Bool[Tensor, " n"], ridge: float, steps: int = 60
) -> tuple[Float[Tensor, " d"], float]:
    """Weights and bias that minimise the class-balanced logistic loss plus `ridge |w|^2`."""
    w, b = torch.zeros(X.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    weight = torch.where(y, 0.5 / y.sum(), 0.5 / (~y).sum())
    optimiser = torch.optim.LBFGS([w, b], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        each = torch.nn.functional.binary_cross_entropy_with_logits(X @ w + b, y.float(), reduction="none")
        value = (weight * each).sum() + ridge * w.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)
    return w.detach(), float(b.detach())


def fit_detector(
    lm: LanguageModel, about: Sequence[Prompt], other: Sequence[Prompt], cfg: DetectorConfig = DetectorConfig()
) -> Detector:
    """A detector of prompts like `about`. Raises ConceptLabError for fewer of a kind than there are folds."""
    if min(len(about), len(other)) < cfg.folds:
        raise ConceptLabError(f"A detector of {cfg.folds} folds needs as many prompts of each kind; give more prompts.")
    layer = lm.check_layer(int(cfg.depth * lm.n_layers))
    features = prompt_features(lm, [*about, *other], layer)
    mean, spread = features.mean(0), features.std(0).clamp_min(1e-6)
    X, y = (features - mean) / spread, torch.arange(len(features)) < len(about)
    held_out, fold = torch.empty(len(X)), torch.arange(len(X)) % cfg.folds
    for k in range(cfg.folds):
        w, b = fit_logistic(X[fold != k], y[fold != k], cfg.ridge)
        held_out[fold == k] = X[fold == k] @ w + b
    threshold = max(0.0, float(torch.quantile(held_out[~y], 1 - cfg.alarm)))
    w, b = fit_logistic(X, y, cfg.ridge)
    return Detector(layer, mean, spread, w, b, threshold)


def prompt_of(lm: LanguageModel, question: Question) -> Prompt:
    """A question as it is read behind the examples."""
    return tuple(lm.encode(question_stem(question)))


def concept_detector(shared: Shared, cfg: DetectorConfig = DetectorConfig()) -> Detector:
    """The detector of a concept, fitted once for all methods."""
    return shared.made(("detector", cfg), lambda: _concept_detector(shared, cfg))


def _concept_detector(shared: Shared, cfg: DetectorConfig) -> Detector:
    lm, judged = shared.lm, shared.judge.questions
    # a fact in its other forms is asked about as well
    told = [replace(q, q=x) for q in shared.forget_facts for x in (q.clue,) if x]
    claims = [
        tuple(lm.encode(q.claim.split("{}")[0].strip())) for q in shared.forget_facts if q.claim.split("{}")[0].strip()
    ]
    own, near, far = shared.leads
    about = [prompt_of(lm, q) for q in (*shared.forget_facts, *told)] + claims + _cut(lm, own, cfg)
    others = [q for name in ("neighbour", "general") for q in shared.dev(name) if q not in judged.get(name, ())]
    other = [prompt_of(lm, q) for q in others] + _cut(lm, [*near[: cfg.n_texts], *far[: cfg.n_texts], FEW_SHOT], cfg)
    return fit_detector(lm, about, other, cfg)


def _cut(lm: LanguageModel, texts: Sequence[str], cfg: DetectorConfig) -> list[Prompt]:
    return [tuple(lm.encode(text)[: cfg.n_ctx]) for text in texts[: 2 * cfg.n_texts + 1]]
