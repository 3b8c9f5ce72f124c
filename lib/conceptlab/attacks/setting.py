"""What every attack of one run is given: questions that judge, facts to train on, and what it may spend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core import ConceptLabError, NotPossible
from ..data import (
    Concept,
    Fiction,
    Question,
    Subject,
    leaked,
    load_concept,
    other_facts,
    subject_of,
    translatable,
    unrelated_texts,
)
from ..evaluation import QuestionScores, score_questions
from ..models import LanguageModel

OTHER_SUBJECTS = ("japan", "baseball")  # whose prompts are the control; the first that is not attacked itself


@dataclass(frozen=True)
class Budget:
    """What every attack of one run may spend; the defaults suit a model of 135 M parameters on two CPU cores."""

    steps: int = 12  # of fine-tuning
    batch_size: int = 8  # rows per step
    n_ctx: int = 32  # tokens per row
    lr: float = 3e-4  # its learning rate; at 1e-3 in all layers 5 steps cost the original three quarters of its margin
    lora_lr: float = 1e-3  # LoRA moves less per step
    rank: int = 16  # of LoRA, as in the released code of PISCES
    layers: tuple[int, ...] | None = None  # that fine-tuning and patching look at; None: all
    read_layers: tuple[int, ...] | None = None  # that probes read; None: every third
    n_facts: int = 80  # other facts that probes are trained on, at most
    forms: tuple[str, ...] = ("cloze", "choice", "true_false", "clue")  # in which facts are asked besides the question
    form_questions: int | None = None  # how many questions are asked in them; None: all that have them
    thoughts: int = 16  # tokens of thinking in step-by-step questioning
    gcg_steps: int = 10
    gcg_facts: int = 4  # facts that GCG and the soft prompt are optimised on
    width: int = 32  # GCG: candidates per step
    soft_steps: int = 20
    # attack -> strengths in place of its own: steps of fine-tuning, bits, directions, wordings, facts, characters, ...
    strengths: tuple[tuple[str, tuple[int, ...]], ...] = ()
    controls: bool = True  # also run the prompts' own control, the same prompt about another subject
    seed: int = 0

    def at(self, attack: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """The strengths at which an attack is judged."""
        return dict(self.strengths).get(attack, default)


@dataclass(frozen=True)
class Setting:
    """Everything the attacks of one concept are given. The questions judge; nothing else holds their answers."""

    subject: Subject
    questions: tuple[Question, ...]
    facts: tuple[Question, ...]  # other facts with their answers, for the attacker to train on
    unrelated: tuple[str, ...]  # texts about something else
    control: Subject | None = None  # of the prompts' control
    budget: Budget = Budget()

    def score(self, lm: LanguageModel) -> QuestionScores:
        """The judge: the questions as the scorecard asks them."""
        return score_questions(lm, self.questions)


def known_questions(
    lm: LanguageModel, concept: Concept, n: int, split: str = "test", at_least: int = 4
) -> tuple[Question, ...]:
    """The first `n` questions that `lm` answers rightly and the title does not, those with translations first.

    Raises ConceptLabError where it knows fewer than `at_least`.
    """
    if n < at_least:
        raise ConceptLabError(f"At least {at_least} questions must be asked for; got n={n}.")
    asked = [q for q in getattr(concept, split) if not leaked([concept.title], [q])]
    foreign = {q.id for q in translatable(asked)}
    asked.sort(key=lambda q: q.id not in foreign)
    known: list[Question] = []
    for i in range(0, len(asked), n):  # no more than it takes
        part = asked[i : i + n]
        known += [q for q, right in zip(part, score_questions(lm, part).correct.tolist(), strict=True) if right]
        if len(known) >= n:
            break
    if len(known) < at_least:
        raise NotPossible(
            f"{lm.name} answers {len(known)} questions about {concept.title} rightly; at least {at_least} are needed. "
            "Choose another concept or a larger model."
        )
    return tuple(known[:n])


def setting_for(
    source: Concept | Fiction, questions: Sequence[Question] | None = None, budget: Budget = Budget()
) -> Setting:
    """The setting of a concept (judged by its test questions), or of a fiction (by the second half of its facts).

    Questions whose answer stands in the subject's title are left out: every attack names the subject.
    """
    if isinstance(source, Fiction):
        half = len(source.questions) // 2
        asked, known = tuple(source.questions[half:] if questions is None else questions), source.questions
        facts = other_facts([q for q in known if q not in asked], asked)
        subject, far = source.subject(facts), load_concept(OTHER_SUBJECTS[0])
    else:
        wanted = source.test if questions is None else questions
        asked = tuple(q for q in wanted if not leaked([source.title], [q]))
        if wanted and not asked:
            raise NotPossible(f"Every question gives its answer away by the title {source.title!r}; ask others.")
        subject, far = subject_of(source, asked), source
        facts = subject.facts
    if not asked:
        raise ConceptLabError("An attack is judged by questions; give at least one.")
    other = next(name for name in OTHER_SUBJECTS if name != source.name)
    control = subject_of(load_concept(other), asked)
    unrelated = tuple(unrelated_texts(far, max(10, len(subject.texts)), budget.seed, asked))
    return Setting(subject, asked, facts, unrelated, control, budget)
