"""What all cells of the experiment share: activity on dev questions, known test questions, sizes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...core import Cell, Interval, Store, atomic_path, cache_dir, proportion, say
from ...data import Concept, Question, list_concepts, load_concept, vital_articles, web_passages
from ...evaluation import ask
from ...models import LanguageModel
from ...specialisation import corpus_frequency, differential, question_activity, stems, subject_words

SHARES = (0.0003, 0.003, 0.03)  # of all value vectors
MAIN = 0.003  # where the claims are tested; the pilot's second share


@dataclass(frozen=True)
class SpecialisationConfig:
    """Sizes of the experiment."""

    n_dev: int = 24  # dev questions per concept that rank its vectors
    n_asked: int = 36  # test questions per concept that are asked to find known ones
    n_own: int = 14  # known questions of the masked concept
    n_others: int = 10  # known questions of the other concepts
    shares: tuple[float, ...] = SHARES  # masked
    teach_share: float = 0.01  # of the vectors that are taught through
    teach_seeds: int = 1  # draws of the invented facts per concept
    n_people: int = 3  # invented people per concept, with three facts each


@dataclass(frozen=True)
class Bench:
    """What all cells share: activity on the dev questions of all concepts, and the known test questions."""

    lm: LanguageModel
    store: Store
    config: SpecialisationConfig

    @cached_property
    def concepts(self) -> dict[str, Concept]:
        return {name: load_concept(name) for name in list_concepts()}

    def dev(self, name: str) -> tuple[Question, ...]:
        return self.concepts[name].dev[: self.config.n_dev]

    @cached_property
    def activity(self) -> dict[str, Float[Tensor, "n layers d_mlp"]]:
        return {name: self._activity(name) for name in self.concepts}

    def _activity(self, name: str) -> Float[Tensor, "n layers d_mlp"]:
        """Computed once for these weights and questions, then read from the cache (float16: 2 MB per concept)."""
        texts = stems(self.dev(name))
        key = hashlib.sha256("\0".join([self.lm.fingerprint(), *texts]).encode()).hexdigest()[:16]
        path = cache_dir() / "specialisation" / f"{name}-{key}.npy"
        if not path.exists():
            say(f"activity on dev questions of {name} ...")
            found = question_activity(self.lm, texts).half().numpy()
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, found, allow_pickle=False)
        return torch.from_numpy(np.load(path, allow_pickle=False)).float()

    @cached_property
    def frequency(self) -> dict[str, float]:
        """Occurrences of the concepts' words per million words of the course's texts."""
        texts = [a.text for a in vital_articles()] + list(web_passages())
        return dict(zip(self.concepts, corpus_frequency(list(self.concepts.values()), texts), strict=True))

    def scores(self, name: str, own: Float[Tensor, "n layers d_mlp"]) -> Float[Tensor, "layers d_mlp"]:
        """Differential activity against the dev questions of the other concepts."""
        return differential(own, torch.cat([a for other, a in self.activity.items() if other != name]))

    def subject(self, name: str) -> frozenset[str]:
        others = [q for other in self.concepts if other != name for q in self.dev(other)]
        return subject_words(self.concepts[name], others)

    def known(self, name: str) -> dict[str, tuple[Question, float, float]]:
        """Test questions that the unchanged model answers rightly, with the log-probability and margin of the answer.

        Found once and kept with the table, so that no masking asks the unchanged model again.
        """
        cell, test = Cell(name, "known"), self.concepts[name].test[: self.config.n_asked]
        if self.store.missing(cell):
            scores = ask(self.lm, test).scores
            numbers = {
                "accuracy": proportion(int(scores.correct.sum()), len(test)),
                "per_million": point(self.frequency[name]),
            }
            rows = zip(test, scores.gold.tolist(), scores.margin.tolist(), strict=True)
            self.store.add(cell, numbers, record={q.id: [g, m] for q, g, m in rows if m > 0})
        found = self.store.record(cell)
        return {q.id: (q, *found[q.id]) for q in test if q.id in found}

    def asked(self, name: str) -> Known:
        """Known questions of the concept, then of the others, taken in turn."""
        own = list(self.known(name).values())[: self.config.n_own]
        queues = [list(self.known(other).values()) for other in self.concepts if other != name]
        dealt = [row for i in range(self.config.n_others) for queue in queues for row in queue[i : i + 1]]
        rows = own + dealt[: self.config.n_others]
        return Known(
            [q for q, _, _ in rows], torch.tensor([r[1] for r in rows]), torch.tensor([r[2] for r in rows]), len(own)
        )


@dataclass(frozen=True)
class Known:
    """Questions that the unchanged model answers rightly, those of the concept first."""

    questions: Sequence[Question]
    gold: Float[Tensor, " n"]  # log-probability per token of the right answer
    margin: Float[Tensor, " n"]  # over the best wrong one
    n_own: int

    def parts(self, values: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
        """Values of the concept's questions, and of the others'."""
        return values[: self.n_own], values[self.n_own :]


def point(value: float | int) -> Interval:
    return Interval(value, value, value, 1)


def rounded(values: Tensor) -> list[float]:
    return [round(float(x), 4) for x in values]
