"""Edits of every method for one concept, brought to about the same direct efficacy on dev questions.

PISCES, alone and with the embedding edit, is what `conceptlab.erasure` makes of it. The others follow it: Needle by its
number of vectors, gradient ascent and NPO by the moment at which their training stops and by a factor. These two train
on dev facts; the facts by which they are matched are not among those.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from ..attacks import Setting, known_questions
from ..data import Concept, Fiction, Question, fact_texts
from ..edits import WeightEdit
from ..erasure import (
    EraserConfig,
    Erasure,
    ErasureConfig,
    finetuned_eraser,
    forget_and_keep,
    zeroed_edit,
    promoting_vectors,
    shipped_dictionaries,
)
from ..evaluation import QuestionScores, closest, score_questions
from ..models import LanguageModel

ERASERS = ("gradient_ascent", "npo")


ERASER = EraserConfig(steps=32, batch_size=4, n_ctx=24, lr=2e-4)  # at most three minutes on one CPU core


FICTION_ERASER = EraserConfig("npo", steps=10, batch_size=6, n_ctx=24, lr=1e-4)


FACTORS = (1.0, 0.85, 0.7, 0.55)  # by which a training that overshot is scaled back


LEAST = 0.25  # share of the original's margin that is taken away at least, where PISCES takes less


class Edits:
    """`Edits(lm, concept)(method)`: the edit of a method; parts that several methods need are made once."""

    def __init__(
        self,
        lm: LanguageModel,
        concept: Concept,
        cfg: ErasureConfig | None = None,
        eraser: EraserConfig = ERASER,
        n_questions: int = 16,
        shared: dict | None = None,
        seed: int = 0,
    ):
        """`shared`: where dictionaries are kept from one concept to the next."""
        self.lm, self.concept, self.cfg, self.eraser = lm, concept, cfg or ErasureConfig(), eraser
        self.n_questions, self.shared, self.seed = n_questions, {} if shared is None else shared, seed

    @cached_property
    def work(self) -> Erasure:
        if self.lm.name not in self.shared:
            self.shared[self.lm.name] = shipped_dictionaries(self.lm)
        return Erasure(self.lm, self.shared[self.lm.name], self.concept, self.cfg, self.seed)

    @cached_property
    def dev(self) -> tuple[Question, ...]:
        """The questions by which the methods are matched: the last ones, since features are found on the first."""
        return known_questions(self.lm, replace(self.concept, dev=self.concept.dev[::-1]), self.n_questions, "dev")

    @cached_property
    def before(self) -> QuestionScores:
        return score_questions(self.lm, self.dev)

    def __call__(self, method: str) -> WeightEdit:
        if method == "random":
            return self.work.edit("random_norm")
        if method == "needle":
            counts = sorted({*self.cfg.needle_n, *self.cfg.matched_n})
            vectors = promoting_vectors(self.lm, self.concept, counts[-1])
            edits = (zeroed_edit(self.lm, vectors, n, seed=self.seed) for n in counts if n <= len(vectors))
            return closest(self.lost, edits, self.wanted, rising=True)
        if method in ERASERS:
            forget, keep = forget_and_keep(self.concept, seed=self.seed, held_out=self.dev)
            cfg = replace(self.eraser, method=method, seed=self.seed)
            edit = finetuned_eraser(self.lm, forget, keep, cfg, self._enough)
            return closest(self.lost, (edit * factor for factor in FACTORS), self.wanted)
        return self.work.edit(method)

    @cached_property
    def wanted(self) -> float:
        """Nats of dev margin that every method should take away: what PISCES does, but LEAST of it all at least."""
        return max(self.lost(self.work.edit("pisces")), LEAST * float(self.before.margin.mean()))

    def lost(self, edit: WeightEdit) -> float:
        """Nats of margin that an edit costs on known dev questions."""
        with edit.applied(self.lm):
            return self._fallen(score_questions(self.lm, self.dev))

    def _fallen(self, now: QuestionScores) -> float:
        return float((self.before.margin - now.margin).mean())

    def _enough(self, lm: LanguageModel) -> bool:
        return self._fallen(score_questions(lm, self.dev)) >= self.wanted


def erase_fiction(
    lm: LanguageModel, fiction: Fiction, setting: Setting, cfg: EraserConfig = FICTION_ERASER
) -> WeightEdit:
    """NPO on the invented facts that are tested; the other facts and unrelated texts are to be kept."""
    keep = [*setting.unrelated[:10], *fact_texts(setting.facts)]
    return finetuned_eraser(lm, fiction.lessons(setting.questions), keep, cfg)
