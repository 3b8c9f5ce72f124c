"""ConceptVectors' jailbreaks in miniature: does another way of asking go round a vector that was spoilt by noise?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..attacks import PromptConfig, prompt_attack
from ..concept_vectors import ConceptVector, answer_shift, noise_edit
from ..data import Concept, Question, subject_of
from ..edits import WeightEdit, applied
from ..evaluation import QuestionScores, score_questions
from ..models import LanguageModel

# The authors' four prompts without the German one, which needs translations of every question
WAYS = {
    "role": PromptConfig("role", (1,)),
    "story": PromptConfig("story", (1,)),
    "article in the prompt": PromptConfig("article", (600,)),
}


@torch.no_grad()
def shifts_under_prompts(
    lm: LanguageModel,
    concept: Concept,
    vectors: Sequence[ConceptVector],
    questions: Sequence[Question],
    unrelated: Sequence[Question],
    strengths: Sequence[float] = (3, 10, 30),
    seed: int = 0,
) -> dict[str, dict[float, Tensor]]:
    """Way of asking -> strength of the noise -> answer shift (%) of every question.

    As in the authors' code an answer is compared with that of the clean model *under the same prompt*. The article
    holds no sentence with an answer of `questions`. The last way asks the unrelated questions directly.
    """
    subject = subject_of(concept, questions)
    edits: list[WeightEdit | None] = [None, *(noise_edit(lm, vectors, c, seed) for c in strengths)]

    def asked(edit: WeightEdit | None, way: str) -> QuestionScores:
        if way in WAYS:
            return prompt_attack(lm, edit, questions, subject, WAYS[way]).values[0]
        with applied(edit, lm):
            return score_questions(lm, unrelated if way == "unrelated, directly" else questions)

    found = {}
    for way in ("directly", *WAYS, "unrelated, directly"):
        clean, *noisy = (asked(edit, way) for edit in edits)
        found[way] = {c: 100 * answer_shift(clean, x) for c, x in zip(strengths, noisy, strict=True)}
    return found
