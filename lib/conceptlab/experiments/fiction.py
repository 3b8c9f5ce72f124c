"""Methods on invented facts, where a model that was never taught is known exactly.

A copy of the model is taught the facts, a method is fitted there like anywhere else, and the erased copy is compared
with its twin, the model before the teaching: what it still knows, how far it went below the twin (overshoot), and how
deep the erasure reaches, with the twin's own states as what lacks the facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..attacks import TEACHING, Rates, RelearnConfig, rates_of, teach
from ..core import NotPossible, say
from ..data import Concept, fiction_concept, general_questions, load_fiction, unrelated_texts
from ..edits import WeightEdit
from ..erasure import Dictionaries, Fitted, Shared, SharedConfig, choose
from ..evaluation import Depth, Overshoot, answer_states, ask, depth, depth_base, overshoot, score_questions
from ..models import LanguageModel


@dataclass(frozen=True)
class FictionScores:
    """One method on the invented facts."""

    fitted: Fitted
    shown: Overshoot  # on the facts that the method was shown, or whose strength was chosen on them (dev)
    held_out: Overshoot  # on the facts that it never saw (test)
    depth: Depth  # of the held-out facts


def taught_copy(lm: LanguageModel, cfg: RelearnConfig = TEACHING, rates: Rates | None = None) -> WeightEdit:
    """The edit that teaches every invented fact, at the learning rate that the model bears."""
    fiction = load_fiction()
    if rates is None:
        known = ask(lm, general_questions("dev"), 24).known(16)
        rates = rates_of(lm, unrelated_texts(fiction_concept(fiction), 10), known.questions, cfg.steps)
    return teach(lm, fiction.lessons(), replace(cfg, lr=rates.teach))


def on_fiction(
    lm: LanguageModel,
    methods: Sequence[str],
    taught: WeightEdit,
    saes: Dictionaries | None = None,
    cfg: SharedConfig | None = None,
    concept: Concept | None = None,
) -> dict[str, FictionScores]:
    """Each method fitted on the taught copy and compared with the twin; those that are not possible are left out.

    Strengths are chosen on the dev half of the facts as in the lab. The model is left as it was.
    """
    concept = concept or fiction_concept(load_fiction())
    never = {split: score_questions(lm, getattr(concept, split)) for split in ("dev", "test")}
    absent = answer_states(lm, concept.test)
    found = {}
    with taught.applied(lm):
        shared = Shared(lm, concept, saes, cfg)
        before = {split: score_questions(lm, getattr(concept, split)) for split in never}
        base = depth_base(lm, concept.test, never=absent)
        for name in methods:
            try:
                fitted = choose(name, lm, concept, shared)
            except NotPossible as reason:
                say(f"{concept.name} {name}: {reason}")
                continue
            shared.keep_chosen(fitted)
            with fitted.intervention.applied(lm):
                after = {split: score_questions(lm, getattr(concept, split)) for split in never}
            shown, held_out = (overshoot(before[split], after[split], never[split]) for split in ("dev", "test"))
            found[name] = FictionScores(fitted, shown, held_out, depth(lm, base, fitted.intervention))
    return found
