"""The scorecard of an intervention: what the target lost, and what everything else kept.

`base = scorecard(lm, concept)`, then inside any intervention `after = scorecard(lm, concept)`, then
`compare(base, after)`. Relative numbers are corrected for chance: 1 means as good as before, 0 means guessing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from ..core import ConceptLabError, Interval, paired_bootstrap
from ..data import FEW_SHOT, Concept, Question, general_questions, held_out_passages
from ..edits import WeightEdit
from ..models import LanguageModel, shared_prefix
from .fluency import Fluency, fluency
from .questions import QuestionScores, gold_logprobs, score_questions
from .writing import Behaviour, behaviour

SETS = ("target", "neighbour", "general")


@dataclass(frozen=True)
class Scorecard:
    """What one state of a model scores on a concept, its neighbour, general questions and held-out text."""

    concept: str
    split: str  # "dev" or "test"
    scores: dict[str, QuestionScores]  # one per name in SETS that was asked for
    text: Fluency | None = None
    writing: Behaviour | None = None  # greedy continuations and answers to instructions, if they were asked for

    def accuracy(self, name: str) -> float:
        """Share of right answers in one set of questions."""
        return self.scores[name].accuracy


@dataclass(frozen=True)
class Change:
    """One set of questions before and after."""

    accuracy_before: float
    accuracy_after: float
    relative: Interval  # chance-corrected accuracy after over before, clipped to [0, 1]
    gold: Interval  # change of the right answer's log-probability per token (nats)
    margin: Interval  # change of right minus best wrong option (nats)


@dataclass(frozen=True)
class Comparison:
    """After against before; every number with its 95 % bootstrap interval over questions (or texts).

    The `n` of an axis that several sets of items go into is that of the smallest.
    """

    changes: dict[str, Change]
    efficacy: Interval  # 1 - relative accuracy on the target
    specificity: Interval  # harmonic mean of the relative accuracies on neighbour and general questions
    coherence: Interval  # harmonic mean of `parts` (1 if nothing was measured)
    overall: Interval  # harmonic mean of the three
    # What coherence is made of, each relative to the base and at most 1: `perplexity` before over after on held-out
    # text, `repetition` (share of different n-grams), `instructions` (share of those that are followed)
    parts: dict[str, Interval] = field(default_factory=dict)


def scorecard(
    lm: LanguageModel,
    concept: Concept,
    split: str = "dev",
    n_questions: int | None = None,
    n_texts: int = 16,
    sets: Sequence[str] = SETS,
    batch_size: int = 32,
    writing: bool = False,
) -> Scorecard:
    """Score the model as it is now, inside whatever intervention is active.

    At most `n_questions` of each set (the first ones, so that two cards match item by item) and `n_texts` held-out
    web passages (0: none); `writing`: repetition and instructions too, which costs as much again.
    Choose on split "dev"; "test" is for one final table.
    """
    questions = concept_questions(concept, split)
    unknown = [name for name in sets if name not in questions]
    if unknown:
        raise ConceptLabError(f"Unknown set of questions {unknown[0]!r}; {concept.name} has {', '.join(questions)}.")
    chosen = {name: questions[name][:n_questions] for name in sets}
    return score_sets(lm, concept.name, split, chosen, n_texts, batch_size, writing)


def score_sets(
    lm: LanguageModel,
    concept: str,
    split: str,
    questions: dict[str, Sequence[Question]],
    n_texts: int = 16,
    batch_size: int = 32,
    writing: bool = False,
) -> Scorecard:
    """A card over questions of one's own choice (set name -> questions); the rest as in `scorecard`."""
    few_shot = shared_prefix(lm, FEW_SHOT) if questions else FEW_SHOT
    scores = {name: score_questions(lm, chosen, few_shot, batch_size) for name, chosen in questions.items()}
    text = fluency(lm, held_out_passages(split, n_texts)) if n_texts else None
    return Scorecard(concept, split, scores, text, behaviour(lm) if writing else None)


def concept_questions(concept: Concept, split: str) -> dict[str, tuple]:
    """The questions of a split by set: target, neighbour (if the concept has one), general."""
    if split not in ("dev", "test"):
        raise ConceptLabError(f"The split is 'dev' or 'test'; got {split!r}.")
    found = {"target": getattr(concept, split), "general": general_questions(split)}
    if concept.neighbour is not None:
        found["neighbour"] = getattr(concept.neighbour, split)
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
    """
    sets = concept_questions(concept, split)
    questions = [q for name in SETS for q in sets[name][:n_questions]]
    sizes = [len(sets[name][:n_questions]) for name in SETS]
    before = gold_logprobs(lm, questions)
    rows = []
    for edit in tqdm(edits, unit="edit", disable=not progress):
        with edit.applied(lm):
            change = gold_logprobs(lm, questions) - before
        rows.append([float(part.mean()) for part in change.split(sizes)])
    return torch.tensor(rows).reshape(-1, len(SETS))


def compare(
    base: Scorecard, after: Scorecard, n_resamples: int = 2_000, seed: int = 0, known: bool = False
) -> Comparison:
    """Paired comparison of two cards over the same questions.

    `known`: use only the questions that the base card answers rightly. Resamples whose base accuracy is not above
    chance count as relative accuracy 0. Raises when the cards do not hold the same questions.
    """
    _check_pair(base, after)
    generator = torch.Generator().manual_seed(seed)
    changes, samples, sizes = {}, {}, {}
    for name, before in base.scores.items():
        now = after.scores[name]
        keep = before.correct if known else torch.ones_like(before.correct)
        if not bool(keep.any()):
            raise ConceptLabError(f"The base model answers no {name} question rightly; choose another concept.")
        chance, sizes[name] = 1 / before.logprobs.shape[1], int(keep.sum())
        pairs = before.correct[keep], now.correct[keep]
        value, samples[name] = _relative_samples(*pairs, chance, n_resamples, generator)
        changes[name] = Change(
            float(pairs[0].float().mean()),
            float(pairs[1].float().mean()),
            _interval(value, samples[name], sizes[name]),
            paired_bootstrap(now.gold[keep], before.gold[keep], n_resamples, seed),
            paired_bootstrap(now.margin[keep], before.margin[keep], n_resamples, seed),
        )
        samples[name] = torch.cat([torch.tensor([value]), samples[name]])  # the estimate itself goes first
    spared = [samples[name] for name in samples if name != "target"]
    efficacy = 1 - samples["target"] if "target" in samples else torch.full((n_resamples + 1,), torch.nan)
    specificity = harmonic_mean(spared) if spared else torch.ones(n_resamples + 1)
    parts = _coherence_parts(base, after, n_resamples, generator)
    coherence = harmonic_mean(list(parts.values())) if parts else torch.ones(n_resamples + 1)
    overall = harmonic_mean([efficacy, specificity, coherence])
    made_of = _coherence_sizes(base)
    spared_sizes = [n for name, n in sizes.items() if name != "target"]
    ns = sizes.get("target", 0), min(spared_sizes, default=0), min(map(made_of.get, parts), default=0)
    ns += (min(filter(None, ns), default=0),)  # what was not measured has no say in overall
    axes = [efficacy, specificity, coherence, overall]
    found = [_interval(float(x[0]), x[1:], n) for x, n in zip(axes, ns, strict=True)]
    return Comparison(
        changes, *found, {name: _interval(float(x[0]), x[1:], made_of[name]) for name, x in parts.items()}
    )


def compare_writing(base: Behaviour, after: Behaviour, n_resamples: int = 2_000, seed: int = 0) -> dict[str, Interval]:
    """The parts of the coherence that need the model to write, by themselves; see `Comparison.parts`."""
    cards = (Scorecard("", "", {}, writing=found) for found in (base, after))
    parts = _coherence_parts(*cards, n_resamples, torch.Generator().manual_seed(seed))
    n = _coherence_sizes(Scorecard("", "", {}, writing=base))
    return {name: _interval(float(x[0]), x[1:], n[name]) for name, x in parts.items()}


def relative_accuracy(before: float, after: float, chance: float = 0.25) -> float:
    """`(after - chance) / (before - chance)` clipped to [0, 1]; 0 where the base is not above chance."""
    if before <= chance:
        return 0.0
    return min(max((after - chance) / (before - chance), 0.0), 1.0)


def harmonic_mean(parts: Sequence[Tensor | float]) -> Tensor:
    """Harmonic mean over the parts (element-wise); 0 as soon as one part is 0 or less."""
    if not parts:
        raise ConceptLabError("A harmonic mean needs at least one number.")
    stacked = torch.stack([torch.as_tensor(p, dtype=torch.float64) for p in parts])
    mean = len(stacked) / (1 / stacked.clamp_min(1e-300)).sum(0)
    return torch.where((stacked <= 0).any(0), torch.zeros_like(mean), mean)


def _relative_samples(
    before: Bool[Tensor, " n"], after: Bool[Tensor, " n"], chance: float, n_resamples: int, generator: torch.Generator
) -> tuple[float, Float[Tensor, " n_resamples"]]:
    picks = torch.randint(len(before), (n_resamples, len(before)), generator=generator)
    a, b = (x.double()[picks].mean(1) for x in (before, after))
    ratio = ((b - chance) / (a - chance).clamp_min(1e-12)).clamp(0, 1)
    value = relative_accuracy(float(before.double().mean()), float(after.double().mean()), chance)
    return value, torch.where(a > chance, ratio, torch.zeros_like(ratio))


def _coherence_sizes(card: Scorecard) -> dict[str, int]:
    """Texts, prompts and instructions behind each part of the coherence."""
    found = {} if card.text is None else {"perplexity": len(card.text.nll)}
    if card.writing is not None:
        found |= {"repetition": len(card.writing.distinct), "instructions": len(card.writing.follows)}
    return found


def _coherence_parts(
    base: Scorecard, after: Scorecard, n_resamples: int, generator: torch.Generator
) -> dict[str, Float[Tensor, " samples"]]:
    """Samples of each part of the coherence, the estimate itself first; parts that were not measured are left out."""

    def picks(n: int) -> Tensor:
        drawn = torch.randint(n, (n_resamples, n), generator=generator)
        return torch.cat([torch.arange(n)[None], drawn])

    parts = {}
    if base.text is not None and after.text is not None:
        at = picks(len(base.text.nll))
        growth = (after.text.nll - base.text.nll)[at].sum(1) / base.text.n_tokens[at].sum(1)
        parts["perplexity"] = (-growth.double()).exp().clamp(max=1)
    if base.writing is not None and after.writing is not None:
        for name, key in (("repetition", "distinct"), ("instructions", "follows")):
            before, now = (getattr(card.writing, key).double() for card in (base, after))
            if float(before.sum()) > 0:  # where the base follows no instruction, none can be lost
                at = picks(len(before))
                parts[name] = (now[at].mean(1) / before[at].mean(1).clamp_min(1e-12)).clamp(0, 1)
    return parts


def _interval(value: float, samples: Tensor, n: int) -> Interval:
    low, high = torch.quantile(samples.double(), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(value, low, high, n)


def _check_pair(base: Scorecard, after: Scorecard) -> None:
    same = (base.concept, base.split, list(base.scores)) == (after.concept, after.split, list(after.scores))
    if not same or any(
        not torch.equal(base.scores[n].answers, after.scores[n].answers) for n in base.scores if n in after.scores
    ):
        raise ConceptLabError(
            "Two scorecards can be compared when concept, split and questions are the same; make both with the same "
            "arguments of scorecard()."
        )
    if base.text is not None and after.text is not None and not torch.equal(base.text.n_tokens, after.text.n_tokens):
        raise ConceptLabError("The two scorecards were made on different held-out texts; use the same n_texts.")
    if (base.writing is None) != (after.writing is None):
        raise ConceptLabError("Only one of the two scorecards holds what the model writes; use the same writing=.")
