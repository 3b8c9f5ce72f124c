"""All attacks under one name each, with one setting for all, and the numbers that a result comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

import torch

from ..core import ConceptLabError, Interval, NotPossible, bootstrap, paired_bootstrap, recovered_share
from ..data import fact_texts, translatable
from ..edits import Intervention
from ..evaluation import QuestionScores
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
from .setting import Budget, Setting
from .soft_prompt import SoftPromptConfig, soft_prompt
from .undoing import UndoConfig, undo

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
