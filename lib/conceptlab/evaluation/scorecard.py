"""The scorecard of a model: what it answers on a concept, on what must be spared, and how it writes.

`base = scorecard(lm, concept)`, then inside any intervention `after = scorecard(lm, concept)`, then
`compare(base, after)` (comparison.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from ..core import ConceptLabError
from ..data import FEW_SHOT, Concept, Question, general_questions, held_out_passages
from ..edits import WeightEdit
from ..models import LanguageModel, shared_prefix
from .fluency import Fluency, fluency
from .questions import QuestionScores, check_questions, gold_logprobs, score_questions
from .writing import Behaviour, behaviour

SETS = ("target", "neighbour", "general")  # those that an edit is chosen by, on dev
UNSEEN = "unseen_"  # begins the names of near domains that no choice has seen; on test only


@dataclass(frozen=True)
class Scorecard:
    """What one state of a model scores on a concept, its neighbour, general questions and held-out text."""

    concept: str
    split: str  # "dev" or "test"
    scores: dict[str, QuestionScores]  # by set of questions, see `concept_questions`
    text: Fluency | None = None
    writing: Behaviour | None = None  # greedy continuations and answers to instructions, if they were asked for


def scorecard(
    lm: LanguageModel,
    concept: Concept,
    split: str = "dev",
    n_questions: int | None = None,
    n_texts: int = 16,
    sets: Sequence[str] | None = None,
    batch_size: int = 32,
    writing: bool = False,
) -> Scorecard:
    """Score the model as it is now, inside whatever intervention is active.

    At most `n_questions` of each of `sets` (None: all of `concept_questions`; the first ones, so that two cards match
    item by item) and `n_texts` held-out web passages (0: none); `writing`: repetition and instructions too, which costs
    as much again. Choose on split "dev"; "test" is for one final table.
    """
    questions = concept_questions(concept, split)
    sets = tuple(questions) if sets is None else sets
    unknown = [name for name in sets if name not in questions]
    if unknown:
        raise ConceptLabError(f"Unknown set of questions {unknown[0]!r}; {concept.name} has {', '.join(questions)}.")
    if n_questions is not None and n_questions < 1:
        raise ConceptLabError(f"A card asks at least one question of each set (None: all); got {n_questions=}.")
    if n_texts < 0:
        raise ConceptLabError(f"A card reads n_texts held-out passages, 0 or more; got {n_texts}.")
    chosen = {name: questions[name][:n_questions] for name in sets}
    return score_sets(lm, concept.name, split, chosen, n_texts, batch_size, writing)


def score_sets(
    lm: LanguageModel,
    concept: str,
    split: str,
    questions: Mapping[str, Sequence[Question]],
    n_texts: int = 16,
    batch_size: int = 32,
    writing: bool = False,
) -> Scorecard:
    """A card over questions of one's own choice (set name -> questions); the rest as in `scorecard`."""
    for name, asked in questions.items():
        check_questions(asked, f"the set {name!r} of {concept}")
    few_shot = shared_prefix(lm, FEW_SHOT) if questions else FEW_SHOT
    scores = {name: score_questions(lm, chosen, few_shot, batch_size) for name, chosen in questions.items()}
    text = fluency(lm, held_out_passages(split, n_texts)) if n_texts else None
    return Scorecard(concept, split, scores, text, behaviour(lm) if writing else None)


def concept_questions(concept: Concept, split: str) -> dict[str, tuple[Question, ...]]:
    """The questions of a split by set: target, neighbour (if the concept has one), general.

    On "test" also `unseen_<name>` for each near domain that took part in no choice (`concept.near`); never on "dev".
    """
    if split not in ("dev", "test"):
        raise ConceptLabError(f"The split is 'dev' or 'test'; got {split!r}.")
    found = {"target": getattr(concept, split)}
    if concept.neighbour is not None:
        found["neighbour"] = getattr(concept.neighbour, split)
    found["general"] = general_questions(split)
    if split == "test":
        found |= {UNSEEN + domain.name: domain.test for domain in getattr(concept, "near", ())}
    return found


def edit_effects(
    lm: LanguageModel,
    edits: Sequence[WeightEdit],
    concept: Concept,
    n_questions: int = 16,
    split: str = "dev",
    progress: bool = False,
) -> Float[Tensor, "edits 3"]:
    """Mean change of the right answer's log-probability (nats per token) under each edit, for each set in SETS.

    A quick look at many edits, for filters and heat maps: the first `n_questions` of each set, all in one batch.
    Raises ConceptLabError where a set has no questions.
    """
    sets = concept_questions(concept, split)
    if empty := [name for name in SETS if not sets.get(name, ())[:n_questions]]:
        raise ConceptLabError(
            f"{concept.name} has no {split} questions of the set {empty[0]!r} ({n_questions=}), and the effect of an "
            "edit is measured on each; add some to its file."
        )
    questions = [q for name in SETS for q in sets[name][:n_questions]]
    sizes = [len(sets[name][:n_questions]) for name in SETS]
    before = gold_logprobs(lm, questions)
    rows = []
    for edit in tqdm(edits, unit="edit", disable=not progress):
        with edit.applied(lm):
            change = gold_logprobs(lm, questions) - before
        rows.append([float(part.mean()) for part in change.split(sizes)])
    return torch.tensor(rows).reshape(-1, len(SETS))
