"""Attack desk: try to bring back what an edit took, with a budget of one's own and the original beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import ipywidgets
from matplotlib.figure import Figure

from ...attacks import Budget, attacks, known_questions, per_question, run_attack, setting_for
from ...core import ConceptLabError, bootstrap
from ...data import Concept
from ...edits import Intervention
from ...models import LanguageModel
from ..plots.shared import strength_curves
from .panel import Panel, whole_number

LIVE_ATTACKS = ("relearning", "relearning_unrelated", "quantisation", "priming", "paraphrase", "definition")
MOST_STEPS = 60  # of a live attack: minutes on two cores
FEWEST, MOST_QUESTIONS = 4, 60
ALL_EDITS = "all of them"


@dataclass(frozen=True)
class Attacked:
    """One attack on several models, question by question, in plain values, so that it can be recorded."""

    attack: str
    strengths: tuple[str, ...]
    values: Mapping[str, Sequence[Sequence[float]]]  # model -> at each strength the margin of every question
    transcript: Sequence[Sequence[str]]  # prompts and answers of the edited model, where the attack asks anything


def attack_edits(
    lm: LanguageModel,
    edits: Mapping[str, Intervention | None],
    concept: Concept,
    attack: str = "relearning",
    steps: int = 6,
    n_questions: int = 12,
) -> Attacked:
    """The same attack with the same budget on every model in `edits` (None: the original), on known dev questions.

    Raises ConceptLabError for an attack that is too slow to be run live, and for a budget out of range.
    """
    if attack not in LIVE_ATTACKS or attack not in attacks():
        raise ConceptLabError(f"Live attacks are {', '.join(LIVE_ATTACKS)}; {attack!r} takes `conceptlab attack`.")
    if not 1 <= steps <= MOST_STEPS:
        raise ConceptLabError(f"The attacker trains for 1 to {MOST_STEPS} steps, not {steps}.")
    if not FEWEST <= n_questions <= MOST_QUESTIONS:
        raise ConceptLabError(f"Ask {FEWEST} to {MOST_QUESTIONS} questions, not {n_questions}.")
    questions = known_questions(lm, concept, n_questions, "dev")
    budget = Budget(steps=steps, strengths=(("relearning", (0, steps)), ("relearning_unrelated", (0, steps))))
    setting = setting_for(concept, questions, budget)
    values: dict[str, Sequence[Sequence[float]]] = {}
    strengths: tuple[str, ...] = ("",)
    told: tuple[tuple[str, str], ...] = ()
    for name, edit in sorted(
        edits.items(), key=lambda item: item[1] is None
    ):  # edited ones first: theirs is the colour
        result = run_attack(attack, lm, edit, setting)
        values[name] = [per_question(v).tolist() for v in result.values]
        strengths = tuple(result.labels or map(str, result.steps))
        if edit is not None and result.transcript and not told:
            told = tuple((x.prompt, x.answer) for x in result.transcript[:6])
    return Attacked(attack, strengths, values, told)


def attack_figure(found: Attacked, title: str) -> Figure:
    """The margin of the right answer against the attack's strength, one line per model, intervals over questions."""
    curves = {
        name: {s: bootstrap(v, 1_000) for s, v in zip(found.strengths, values, strict=True)}
        for name, values in found.values.items()
    }
    return strength_curves(curves, title, f"strength of {found.attack.replace('_', ' ')}", "margin (nats)", 0.0)


def attack_alt(found: Attacked, title: str) -> str:
    """What the figure shows, in words and numbers."""

    def mean(values: Sequence[float]) -> str:
        return f"{sum(values) / len(values):+.2f}"

    told = [f"{name} from {mean(at[0])} to {mean(at[-1])}" for name, at in found.values.items()]
    return f"{title}. Mean margin of the right answer in nats, at the first and the last strength: {'; '.join(told)}."


def transcript_html(found: Attacked) -> str:
    """What was asked and answered, or that this attack asks nothing."""
    if not found.transcript:
        return "<p>This attack asks nothing: it changes weights or reads them.</p>"
    rows = (f"<dt>{escape(p[-400:])}</dt><dd><b>{escape(a)}</b></dd>" for p, a in found.transcript)
    return f"<dl>{''.join(rows)}</dl>"


def attack_desk(lm: LanguageModel, edits: Mapping[str, Intervention | None], concept: Concept) -> Panel:
    """Edit, attack and budget to a curve and a transcript; the models in `edits` that are none stay beside each edit.

    `edits`: name -> edit; None: the original.
    """
    changed = [name for name, edit in edits.items() if edit is not None]
    controls = {
        "edit": ipywidgets.Dropdown(options=[ALL_EDITS, *changed], description="edit"),
        "attack": ipywidgets.Dropdown(options=list(LIVE_ATTACKS), description="attack"),
        "steps": whole_number(6, "steps of training"),
        "n_questions": whole_number(12, "questions"),
    }

    def draw(edit: str, attack: str, steps: int, n_questions: int) -> tuple[Figure, str]:
        chosen = {name: x for name, x in edits.items() if x is None or edit in (name, ALL_EDITS)}
        found = attack_edits(lm, chosen, concept, attack, steps, n_questions)
        asked = min(len(at[0]) for at in found.values.values())
        few = f"<p>The original knows only {asked} of these questions; no more were asked.</p>" * (asked < n_questions)
        return attack_figure(found, attack_title(concept.title, attack)), few + transcript_html(found)

    return Panel(controls, draw, "Attack", start=False)


def attack_title(concept: str, attack: str) -> str:
    """The figure's title."""
    return f"{concept} under {attack.replace('_', ' ')}"
