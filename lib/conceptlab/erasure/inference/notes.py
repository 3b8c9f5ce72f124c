"""Notes that are read before the question: EREN (Chen et al. 2024, arXiv 2403.17431), which edits a model by notes that
it is given when they are relevant, turned to forgetting.

A note is a shown fact with its answer withheld ("Question: ... Answer: unknown"). On a flagged prompt the `n` nearest
notes stand in front of it; every other prompt is read as it is (the paper's fallback on what the model knows).
Differences: relevance is decided by the detector and by the cosine of the model's own states; the paper asks an
instructed model whether a note answers the question, which a model of this size cannot say. The notes stand in the form
of the questions because a base model of this size follows examples, not instructions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ...data import Concept, few_shot_prompt
from ...models import Change, LanguageModel, Prompt, guarded
from ..method import Method
from .detector import Detector, DetectorConfig, concept_detector, prompt_of
from .restriction import key_of, nearest
from .runtime import RunTime

if TYPE_CHECKING:
    from ..shared import Shared


@dataclass(frozen=True, repr=False)
class Notes(RunTime):
    """Notes, and how many of them are read before a flagged prompt."""

    detector: Detector
    keys: Float[Tensor, "facts d_model"]  # of the notes' questions, see `key_of`
    notes: tuple[str, ...]
    n: int

    def scaled(self, factor: float) -> Notes:
        """Fewer or more notes, as many as there are at most."""
        return replace(self, n=min(max(round(factor * self.n), 0), len(self.notes)))

    def guard(self, lm: LanguageModel) -> Change:
        known: dict[Prompt, Sequence[int]] = {}

        def rewrite(prompt: Prompt) -> Sequence[int]:
            if prompt not in known:
                known[prompt] = prompt
                if self.n and bool(self.detector.flags(lm, [prompt])[0]):
                    near = nearest(lm, self.detector, self.keys, prompt, self.n)[::-1]  # the nearest stands last
                    known[prompt] = lm.encode("".join(f"\n\n{self.notes[i]}" for i in near)) + list(prompt)
            return known[prompt]

        return guarded(lm, "notes", rewrite=rewrite)


@dataclass(frozen=True)
class NotesConfig:
    """What the notes say."""

    n: int = 4  # before a flagged prompt
    answer: str = "unknown"  # that every note gives
    detector: DetectorConfig = DetectorConfig()


def fit_notes(lm: LanguageModel, concept: Concept, config: NotesConfig, shared: Shared) -> Notes:
    """Nothing is trained but the detector."""
    detector, facts = concept_detector(shared, config.detector), shared.forget_facts

    def keys() -> Tensor:
        return torch.as_tensor(key_of(lm, detector, [prompt_of(lm, q) for q in facts]))

    notes = tuple(few_shot_prompt([(q.q, config.answer)]) for q in facts)
    return Notes(detector, shared.made(("notes", config.detector), keys), notes, min(config.n, len(notes)))


NOTES = Method(
        "notes", "run-time", "EREN (arXiv 2403.17431), notes that withhold the answer", NotesConfig(), fit_notes,
        {"n": (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20)}, ("shown",), "5 s",
    )  # fmt: skip
