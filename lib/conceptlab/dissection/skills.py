"""Forgetting a skill by fine-tuning on random labels: how far does it reach beyond the items that were trained on?

The question of *Unforgettable Generalization in Language Models* (Zhang, Choshen and Andreas 2024, arXiv 2409.02228):
a skill is a classification task asked as "text, new line, Answer:"; the model is trained on labels that say nothing
about its texts, until it answers them no better than by guessing, and is then asked texts that it was not trained on.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core import ConceptLabError
from ..data import AnswerRow
from ..edits import WeightEdit
from ..erasure import GradientDescent, Material, TuningConfig, finetune
from ..models import LanguageModel

SKILL_PROMPT = "{}\nAnswer:"


@dataclass(frozen=True)
class Items:
    """Texts with one class each; those of one group share a word, and intervals are over groups where there are any."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.labels) or len(self.groups) not in (0, len(self.texts)):
            raise ConceptLabError(
                f"There are {len(self.texts)} texts, {len(self.labels)} labels and {len(self.groups)} groups; give "
                "every text a label, and every text a group or none."
            )

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Skill:
    """A classification task with the words that answer it, and its items in four parts that share no text."""

    name: str
    words: tuple[str, ...]  # one per class
    taught: Items  # the original is tuned on these, with true labels
    trained: Items  # the forgetting trains on these
    probed: Items  # probes are fitted on these: what a trained item's state holds of its dealt label would mislead them
    heldout: Items  # nothing is trained or fitted on these


def dealt_labels(labels: Sequence[int], n_classes: int, seed: int = 0) -> tuple[int, ...]:
    """Random labels that say nothing about the true ones: each class' items get all classes equally often.

    Labels drawn one by one would agree with the truth more or less often than by guessing, and teach it or its opposite
    a little. Where a class' items cannot be shared out evenly, the classes left over are drawn.
    """
    rng, dealt = random.Random(seed), [0] * len(labels)
    for label in sorted(set(labels)):
        places = [i for i, x in enumerate(labels) if x == label]
        given = [c for _ in range(len(places) // n_classes) for c in range(n_classes)]
        given += rng.sample(range(n_classes), len(places) % n_classes)
        rng.shuffle(given)
        for place, c in zip(places, given, strict=True):
            dealt[place] = c
    return tuple(dealt)


def word_salad(texts: Sequence[str], source: Sequence[str], seed: int = 0) -> tuple[str, ...]:
    """The control: in place of every text as many words, drawn at random from the texts of `source`."""
    rng, words = random.Random(seed), [w for text in source for w in text.split()]
    return tuple(" ".join(rng.choices(words, k=len(text.split()))) for text in texts)


# ---- training -----------------------------------------------------------------------------------------------
def label_rows(lm: LanguageModel, texts: Sequence[str], labels: Sequence[int], words: Sequence[str]) -> list[AnswerRow]:
    """Rows to train on: the question as it is asked, and the first token of the label's word, which alone is scored."""
    answers = label_tokens(lm, words)
    heads = [[*lm.start_ids, *ids] for ids in lm.encode_all(map(SKILL_PROMPT.format, texts))]
    return [AnswerRow([*head, answers[c]], len(head)) for head, c in zip(heads, labels, strict=True)]


def label_tokens(lm: LanguageModel, words: Sequence[str]) -> list[int]:
    """The first token of each word behind a space. Raises ConceptLabError where two words share it."""
    tokens = [lm.encode(f" {word}")[0] for word in words]
    if len(set(tokens)) < len(tokens):
        raise ConceptLabError(f"Two of the words {', '.join(words)} begin with the same token; take others.")
    return tokens


def tuned(lm: LanguageModel, rows: Sequence[AnswerRow], config: TuningConfig) -> WeightEdit:
    """The edit that training on the labels of `rows` amounts to; the model itself stays as it is."""
    return finetune(lm, GradientDescent(), Material(list(rows)), config)


# ---- asking -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Answered:
    """What a model says about some items."""

    logprobs: Float[Tensor, "n classes"]  # of each class' word, nats
    labels: Int[Tensor, " n"]

    @property
    def right(self) -> Bool[Tensor, " n"]:
        return self.logprobs.argmax(1) == self.labels

    @property
    def margin(self) -> Float[Tensor, " n"]:
        """Log-probability of the right word minus that of the best other one, nats."""
        own = torch.nn.functional.one_hot(self.labels, self.logprobs.shape[1]).bool()
        others = self.logprobs.masked_fill(own, -math.inf).amax(1)
        return self.logprobs[own] - others

    def says(self, labels: Sequence[int]) -> Bool[Tensor, " n"]:
        """Whether the answer is the given one: the labels that were dealt."""
        return self.logprobs.argmax(1) == torch.tensor(labels)


@torch.no_grad()
def answered(lm: LanguageModel, items: Items, words: Sequence[str], batch_size: int = 32) -> Answered:
    """Log-probability of every class' word behind every text; those of like length go together."""
    tokens = torch.tensor(label_tokens(lm, words), device=lm.device)
    rows = [[*lm.start_ids, *ids] for ids in lm.encode_all(map(SKILL_PROMPT.format, items.texts))]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found = torch.empty(len(rows), len(words))
    for at in range(0, len(order), batch_size):
        chosen = order[at : at + batch_size]
        ids, mask = lm.pad([rows[i] for i in chosen])
        hidden = lm.final_hidden(ids, mask)[torch.arange(len(chosen)), mask.sum(1) - 1]
        found[chosen] = lm.head(hidden).float().log_softmax(-1)[:, tokens].cpu()
    return Answered(found, torch.tensor(items.labels))


# ---- what was lost ------------------------------------------------------------------------------------------
def by_group(values: Tensor, groups: Sequence[int]) -> Float[Tensor, " units"]:
    """Means of the groups, what an interval is over; without groups the values themselves."""
    values = values.double()
    if not groups:
        return values
    if len(groups) != len(values):
        raise ConceptLabError(f"There are {len(values)} values and {len(groups)} groups named; name one for each.")
    return torch.stack([values[torch.tensor(groups) == g].mean() for g in sorted(set(groups))])
