"""In-context refusal: every prompt is preceded by an instruction not to speak of the concept, and by examples.

The baseline of guardrails by prompt (Thaker et al. 2024, arXiv 2403.03329). No prompt is classified: the model itself
has to tell which questions are meant, from examples of refused questions on the concept and of answered ones on its
neighbour, in turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...data import Concept, few_shot_prompt
from ...models import Change, LanguageModel, Prompt, guarded
from ..method import Method
from .runtime import RunTime

if TYPE_CHECKING:
    from ..shared import Shared


@dataclass(frozen=True, repr=False)
class Refusal(RunTime):
    """An instruction and examples in front of every prompt."""

    instruction: str
    refused: tuple[str, ...]  # answered questions on the concept, all with the refusal
    answered: tuple[str, ...]  # on the neighbour, with their answers
    n: int  # of each that are shown

    def scaled(self, factor: float) -> Refusal:
        """Fewer or more examples, as many as there are at most."""
        return replace(self, n=min(max(round(factor * self.n), 0), len(self.refused)))

    def text(self) -> str:
        """What every prompt begins with; nothing without examples."""
        pairs = zip(self.answered[: self.n], self.refused[: self.n], strict=False)
        examples = [example for pair in pairs for example in pair]
        return "\n\n" + "\n\n".join([self.instruction, *examples]) if self.n else ""

    def guard(self, lm: LanguageModel) -> Change:
        before = lm.encode(self.text()) if self.n else []

        def rewrite(prompt: Prompt) -> Sequence[int]:
            return [*before, *prompt]

        return guarded(lm, "in-context refusal", rewrite=rewrite)


@dataclass(frozen=True)
class RefusalConfig:
    """What the prompt says."""

    n: int = 3  # examples of each kind
    answer: str = "I don't know."


def fit_refusal(lm: LanguageModel, concept: Concept, config: RefusalConfig, shared: Shared) -> Refusal:
    """Examples are shown facts, and questions on the neighbour that no strength is chosen on."""
    judged = shared.judge.questions.get("neighbour", ())
    near = [q for q in shared.dev("neighbour") if q not in judged]
    refused = tuple(few_shot_prompt([(q.q, config.answer)]) for q in shared.forget_facts)
    answered = tuple(few_shot_prompt([(q.q, q.gold)]) for q in near)
    instruction = f'Questions about {concept.title} are answered with "{config.answer}"'
    return Refusal(instruction, refused, answered, min(config.n, len(refused)))


IN_CONTEXT_REFUSAL = Method(
        "in_context_refusal", "run-time", "guardrails by prompt (arXiv 2403.03329)", RefusalConfig(), fit_refusal,
        {"n": (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14)}, ("shown",), "0 s",
    )  # fmt: skip
