"""All attacks under one name each, with one set of questions, one setting and one budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points

import torch

from ..core import ConceptLabError, Interval, NotPossible, bootstrap, paired_bootstrap, recovered_share
from ..data import (
    Concept,
    Fiction,
    Question,
    Subject,
    fact_texts,
    leaked,
    load_concept,
    other_facts,
    subject_of,
    translatable,
    unrelated_texts,
)
from ..edits import Intervention
from ..evaluation import QuestionScores, score_questions
from ..models import LanguageModel
from .base import AttackResult, Hits, per_question, share
from .clamped import ClampedConfig, clamped, held_directions
from .forms import FormConfig, ask_forms, with_forms
from .gcg import GCGConfig, gcg
from .hidden_knowledge import HiddenKnowledge, hidden_knowledge
from .logit_lens import CandidateConfig, candidate_sets
from .patching import PatchConfig, patch
from .probing import ProbeConfig, probe
from .prompts import STRENGTHS, PromptConfig, prompt_attack
from .quantisation import GGUF_TYPES, QuantiseConfig, quantise
from .relearning import RelearnConfig, relearn
from .soft_prompt import SoftPromptConfig, soft_prompt
from .undoing import UndoConfig, undo

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


Attack = Callable[[LanguageModel, Intervention | None, Setting], AttackResult]
GROUP = "conceptlab.attacks"  # entry points through which another package adds attacks


def _relearn(name: str, texts: Callable[[Setting], Sequence[str]], lora: bool = False) -> Attack:
    def attack(lm: LanguageModel, intervention: Intervention | None, s: Setting) -> AttackResult:
        b = s.budget
        lr, rank = (b.lora_lr, b.rank) if lora else (b.lr, None)
        cfg = RelearnConfig(b.steps, b.batch_size, b.n_ctx, lr, layers=b.layers, rank=rank, seed=b.seed)
        at = b.at(name, tuple(sorted({max(1, b.steps // 3), max(1, 2 * b.steps // 3), b.steps})))
        return relearn(lm, intervention, texts(s), cfg, evaluate=s.score, at=at)

    return attack


def _prompt(kind: str) -> Attack:
    def attack(lm: LanguageModel, intervention: Intervention | None, s: Setting) -> AttackResult:
        known = len(s.subject.facts)
        strengths = tuple(k for k in s.budget.at(kind, STRENGTHS[kind]) if kind != "priming" or k <= known)
        if not strengths:
            raise NotPossible(f"There are {known} other facts about {s.subject.title}, too few for {kind!r}.")
        cfg = PromptConfig(kind, strengths, s.budget.thoughts)
        questions = translatable(s.questions) if kind == "language" else s.questions
        if not questions:
            raise NotPossible(f"No question about {s.subject.title} has a translation; leave out 'language'.")
        plain = kind in ("paraphrase", "language", "step_by_step") or not s.budget.controls
        return prompt_attack(lm, intervention, questions, s.subject, cfg, control=None if plain else s.control)

    return attack


def _quantise(name: str, group: int | None = None, gguf: bool = False) -> Attack:
    def attack(lm: LanguageModel, intervention: Intervention | None, s: Setting) -> AttackResult:
        cfg = QuantiseConfig(s.budget.at(name, QuantiseConfig.bits), group, gguf and lm.name in GGUF_TYPES)
        return quantise(lm, intervention, s.score, cfg)

    return attack


def _forms(lm: LanguageModel, intervention: Intervention | None, s: Setting) -> AttackResult:
    cfg = FormConfig(s.budget.forms)
    return ask_forms(lm, intervention, with_forms(s.questions, cfg.forms)[: s.budget.form_questions], cfg)


def _undo(lm: LanguageModel, intervention: Intervention | None, s: Setting) -> AttackResult:
    cfg = UndoConfig(directions=s.budget.at("undoing", UndoConfig.directions), seed=s.budget.seed)
    return undo(lm, intervention, s.score, cfg)


def _clamped(lm: LanguageModel, intervention: Intervention | None, s: Setting) -> AttackResult:
    b = s.budget
    at = b.at("clamped", (0, b.soft_steps))
    cfg = ClampedConfig(max(at), b.batch_size, b.n_ctx, at=at, control=b.controls, seed=b.seed)
    held = held_directions(lm, intervention)
    return clamped(lm, intervention, s.facts[: s.budget.n_facts], s.questions, s.score, held, cfg)


SUITE: dict[str, Attack] = {
    "relearning": _relearn("relearning", lambda s: s.subject.texts),
    "relearning_lora": _relearn("relearning_lora", lambda s: s.subject.texts, lora=True),
    "relearning_facts": _relearn("relearning_facts", lambda s: fact_texts(s.facts)),
    "relearning_unrelated": _relearn("relearning_unrelated", lambda s: s.unrelated),
    "relearning_ten_unrelated": _relearn("relearning_ten_unrelated", lambda s: s.unrelated[:10]),
    "quantisation": _quantise("quantisation", gguf=True),
    "quantisation_groups": _quantise("quantisation_groups", group=32),
    "logit_lens": lambda lm, x, s: candidate_sets(lm, x, s.questions),
    "probability_delta": lambda lm, x, s: candidate_sets(lm, x, s.questions, CandidateConfig("probability_delta")),
    "patching": lambda lm, x, s: patch(lm, x, s.score, PatchConfig(layers=s.budget.layers)),
    "undoing": _undo,
    "clamped": _clamped,
    "probe": lambda lm, x, s: probe(lm, x, s.facts[: s.budget.n_facts], s.questions, _probe(s)),
    "hidden_knowledge": lambda lm, x, s: hidden_knowledge(lm, x, s.facts[: s.budget.n_facts], s.questions, _probe(s)),
    "forms": _forms,
    **{kind: _prompt(kind) for kind in STRENGTHS},
    "gcg": lambda lm, x, s: gcg(lm, x, s.facts[: s.budget.gcg_facts], s.questions, _gcg(s)),
    "soft_prompt": lambda lm, x, s: soft_prompt(
        lm, x, s.facts[: s.budget.gcg_facts], s.questions, SoftPromptConfig(s.budget.soft_steps, seed=s.budget.seed)
    ),
}


# The attacks that take seconds each on a small model: together under three minutes on two CPU cores.
QUICK = (
    "relearning", "relearning_unrelated", "quantisation", "logit_lens", "probe", "forms", "role", "priming",
    "paraphrase", "definition",
)  # fmt: skip


QUICK_BUDGET = Budget(
    steps=8, batch_size=6, n_ctx=24, n_facts=60, form_questions=12, strengths=(("priming", (2, 8)),)
)  # fmt: skip


# What a number per question is where it is not the margin: of a probe's score only the order means something, and the
# unit of a margin differs between the forms of a question.
MEASURES = {"probe": "correct", "forms": "correct", "hidden_knowledge": "internal"}


COUNTED = (*MEASURES, "logit_lens", "probability_delta")  # judged against what they find in the original


FLOORS = {"probe": 0.25, "forms": 0.25}  # what guessing among four options gives


def _probe(s: Setting) -> ProbeConfig:
    return ProbeConfig(layers=s.budget.read_layers, seed=s.budget.seed)


def _gcg(s: Setting) -> GCGConfig:
    return GCGConfig(s.budget.gcg_steps, search_width=s.budget.width, seed=s.budget.seed)


def register_attack(name: str, attack: Attack) -> None:
    """Add an attack; raises ConceptLabError where another one has its name."""
    if attacks().get(name, attack) is not attack:
        raise ConceptLabError(f"There is an attack {name!r} already; give yours another name.")
    SUITE[name] = attack


def attacks() -> dict[str, Attack]:
    """Every attack by name: those of the library, then those that other packages bring by an entry point."""
    for entry in entry_points(group=GROUP):
        if entry.name not in SUITE:
            SUITE[entry.name] = entry.load()
    return dict(SUITE)


def run_attack(name: str, lm: LanguageModel, intervention: Intervention | None, setting: Setting) -> AttackResult:
    """One attack of the suite. Raises ConceptLabError for a name that no attack has."""
    known = attacks()
    if name not in known:
        raise ConceptLabError(f"Unknown attack {name!r}; known are {', '.join(known)}.")
    return known[name](lm, intervention, setting)


def summarise(
    name: str,
    result: AttackResult,
    original: QuestionScores,
    erased: QuestionScores,
    setting: Setting,
    ceiling: AttackResult | None = None,
) -> dict[str, dict[str, Interval]]:
    """Per strength: metric -> number with its interval over questions.

    `value`: the measure under attack; `gain`: margin under attack minus margin before; `share`: recovered margin;
    `below_ceiling`: the original under the same attack (`ceiling`) minus this; `control`: the attack's own;
    `above_<scorer>`: hidden knowledge, internal minus external K. An attack that does not rank options by
    log-probability has neither gain nor share, but `kept`: what it finds as a share of what it finds in the original,
    both above guessing (or above the attack's own control). Shares that are not measurable are left out.
    """
    measure, rows = MEASURES.get(name, "margin"), {}
    for i, value in enumerate(result.values):
        numbers = per_question(value, measure)
        counted = isinstance(value, Hits) or measure == "correct"
        found = {"value": bootstrap(numbers > 0 if counted else numbers, over="questions")}
        if isinstance(value, QuestionScores) and name not in MEASURES:
            before, after = (_asked(scores, setting, result) for scores in (original, erased))
            found["gain"] = paired_bootstrap(value.margin, after.margin)
            if (back := share(before, after, value)).measurable:
                found["share"] = back
        if isinstance(value, HiddenKnowledge):
            found |= {f"above_{scorer}": value.gap(scorer) for scorer in value.external}
        if ceiling is not None:
            top = per_question(ceiling.values[i], measure)
            found["below_ceiling"] = paired_bootstrap(top, numbers)
            floor = floor_of(name, result, i)
            if floor is not None and (kept := recovered_share(top, floor, numbers)).measurable:
                found["kept"] = kept
        if result.controls:
            found["control"] = bootstrap(per_question(result.controls[i], measure))
        rows[result.labels[i] if result.labels else str(result.steps[i])] = found
    return rows


def floor_of(name: str, result: AttackResult, i: int) -> torch.Tensor | None:
    """Per question what guessing gives, for attacks whose numbers are no margins; None for the others."""
    measure = MEASURES.get(name, "margin")
    if name in FLOORS:
        return torch.full_like(per_question(result.values[i], measure), FLOORS[name])
    counted = isinstance(result.values[i], Hits | HiddenKnowledge)
    return per_question(result.controls[i], measure) if counted and result.controls else None


def _asked(scores: QuestionScores, setting: Setting, result: AttackResult) -> QuestionScores:
    """The scores of the questions that an attack asked, where it could not ask all (other languages)."""
    if len(result.values[0].answers) == len(scores.answers):
        return scores
    asked = {e.id for e in result.transcript}
    keep = torch.tensor([q.id in asked for q in setting.questions])
    return QuestionScores(scores.logprobs[keep], scores.answers[keep])
