"""Restricted decoding: on a flagged prompt, tokens of the answers that are to be withheld lose probability
(GUARD, Deng et al. 2025, arXiv 2505.13312).

    h <- h + delta,   delta = argmin |delta|  with  (u_t - u_mean) . delta = -p   for every forbidden token t

which takes p nats off the logit of every forbidden token, and something off every token that lies near one in the
unembedding: the method's hard ban and its soft penalty for similar words in one linear step, before the head. Forbidden
are the tokens of the answers to the shown facts that lie nearest to the prompt, and the concept's own words.
Differences: the paper searches with beams, bans whole strings by a trie, and takes similarity from a sentence encoder.
What is asked for and was never among the shown facts can only be met by chance or by its likeness to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...data import FEW_SHOT, Concept, Question
from ...models import Change, LanguageModel, Prompt, Reading, guarded
from ..method import Method
from .detector import Detector, DetectorConfig, concept_detector, prompt_features, prompt_of
from .runtime import RunTime

if TYPE_CHECKING:
    from ..shared import Shared


@dataclass(frozen=True, repr=False)
class RestrictedDecoding(RunTime):
    """Which tokens are forbidden for which prompts, and how much they lose."""

    detector: Detector
    keys: Float[Tensor, "facts d_model"]  # standardised, unit length: what a prompt is compared with
    forbidden: Bool[Tensor, "facts d_vocab"]  # tokens of each shown fact's answer
    always: Bool[Tensor, " d_vocab"]  # the concept's words
    n_nearest: int  # shown facts whose answers are forbidden
    penalty: float  # p, nats

    def scaled(self, factor: float) -> RestrictedDecoding:
        return replace(self, penalty=factor * self.penalty)

    def guard(self, lm: LanguageModel) -> Change:
        flags, known = self.detector.watch(lm), {}  # prompt -> delta at a penalty of one nat
        mean = lm.unembedding_rows().float().mean(0)

        def delta(prompt: Prompt) -> Tensor:
            if prompt not in known:
                near = nearest(lm, self.detector, self.keys, prompt, self.n_nearest)
                tokens = self.forbidden[near].any(0) | self.always
                known[prompt] = push_down(lm.unembedding_rows()[tokens.to(lm.device)].float() - mean)
            return known[prompt]

        def end(hidden: Tensor, reading: Reading) -> Tensor:
            rows = flags(reading).nonzero()[:, 0].tolist()
            changed = hidden.clone()
            for row in rows:
                changed[row] += (self.penalty * delta(reading.prompts[row])).to(hidden)
            return changed

        return guarded(lm, "restricted decoding", end=end)


def push_down(rows: Float[Tensor, "n d_model"], ridge: float = 1e-3) -> Float[Tensor, " d_model"]:
    """The shortest change of a hidden state that takes 1 off its product with every row (nearly, where rows agree)."""
    gram = rows @ rows.T
    gram = gram + ridge * gram.diagonal().mean() * torch.eye(len(rows), device=rows.device)
    return -rows.T @ torch.linalg.solve(gram, torch.ones(len(rows), device=rows.device))


def nearest(
    lm: LanguageModel, detector: Detector, keys: Float[Tensor, "facts d_model"], prompt: Prompt, n: int
) -> list[int]:
    """The shown facts whose questions are most like a prompt, by cosine."""
    return (keys @ key_of(lm, detector, [prompt])[0]).topk(min(n, len(keys))).indices.tolist()


def key_of(lm: LanguageModel, detector: Detector, prompts: Sequence[Prompt]) -> Float[Tensor, "n d_model"]:
    """Prompts as unit vectors, standardised like the detector's features."""
    features = (prompt_features(lm, prompts, detector.layer) - detector.mean) / detector.spread
    return torch.nn.functional.normalize(features, dim=1)


def answer_tokens(lm: LanguageModel, answers: Sequence[str]) -> Bool[Tensor, "n d_vocab"]:
    """The tokens of each answer that say something: of three letters or more, and none of the few-shot examples'."""
    found = torch.zeros(len(answers), lm.d_vocab, dtype=torch.bool)
    plain = set(lm.encode(FEW_SHOT))
    for row, answer in zip(found, answers, strict=True):
        for token in lm.encode(f" {answer}"):
            if token not in plain and sum(c.isalpha() for c in lm.decode([token])) > 2:
                row[token] = True
    return found


@dataclass(frozen=True)
class RestrictionConfig:
    """How much is forbidden."""

    penalty: float = 4.0  # nats off every forbidden token
    n_nearest: int = 4  # shown facts whose answers are forbidden on a flagged prompt
    n_words: int = 24  # words of the concept that are always forbidden there
    detector: DetectorConfig = DetectorConfig()


def fit_restriction(
    lm: LanguageModel, concept: Concept, config: RestrictionConfig, shared: Shared
) -> RestrictedDecoding:
    """Nothing is trained but the detector."""
    detector = concept_detector(shared, config.detector)

    def keys() -> tuple[Tensor, Tensor]:
        facts: list[Question] = shared.forget_facts
        return key_of(lm, detector, [prompt_of(lm, q) for q in facts]), answer_tokens(lm, [q.gold for q in facts])

    known, forbidden = shared.made(("restriction", config.detector), keys)
    words = answer_tokens(lm, concept.words[: config.n_words]).any(0)
    return RestrictedDecoding(detector, known, forbidden, words, config.n_nearest, config.penalty)


GUARD = Method(
        "guard", "run-time", "GUARD: restricted decoding (arXiv 2505.13312)", RestrictionConfig(), fit_restriction,
        {"penalty": (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 14.0, 20.0)}, ("shown",), "5 s",
    )  # fmt: skip
