"""Erasure desk and attack desk: edit a concept with settings of one's own, then try to bring it back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import ipywidgets
from matplotlib.figure import Figure

from ...attacks import Budget, attacks, known_questions, per_question, run_attack, setting_for
from ...core import ConceptLabError, bootstrap
from ...data import Concept, Question
from ...edits import Intervention, WeightEdit, applied
from ...erasure import Dictionaries, Feature, other_features_edit, pisces_edit
from ...evaluation import SETS, QuestionScores, concept_questions, score_questions
from ...models import LanguageModel
from ..plots.picture import state_bars
from ..plots.shared import strength_curves
from .panel import Panel, decimal, whole_number, words_field

STATES = {"original": "ink", "edited": "target", "same rows, other features": "control"}  # -> colour
LIVE_ATTACKS = ("relearning", "relearning_unrelated", "quantisation", "priming", "paraphrase", "definition")
MOST_STEPS = 60  # of a live attack: minutes on two cores
MOST_STRENGTH = 200.0  # mu beyond which no table of the course goes


@dataclass(frozen=True)
class Erased:
    """What an edit does on dev questions, beside its control."""

    edit: WeightEdit
    asked: Mapping[str, Sequence[Question]]  # set -> questions
    scores: Mapping[str, Mapping[str, QuestionScores]]  # state (see STATES) -> set -> scores


def feature_places(text: str, saes: Dictionaries) -> list[Feature]:
    """Features from "6:828, 24:3407" (layer:feature; a minus in front of the feature turns it round).

    Raises ConceptLabError for what is no such list, and for a layer or feature that is not there.
    """
    parts = [part for part in re.split(r"[,\s]+", text.strip()) if part]
    found = [re.fullmatch(r"(\d+):(-?)(\d+)", part) for part in parts]
    if not parts or None in found:
        raise ConceptLabError("Name features as layer:feature, separated by commas, for example 6:828, 24:3407.")
    features = [Feature(int(m[1]), int(m[3]), -1 if m[2] else 1) for m in found if m]
    for f in features:
        if f.layer not in saes:
            raise ConceptLabError(f"There is no dictionary of layer {f.layer}; there are {', '.join(map(str, saes))}.")
        if f.index >= saes[f.layer].cfg.d_sae:
            raise ConceptLabError(f"Layer {f.layer} has features 0 to {saes[f.layer].cfg.d_sae - 1}, not {f.index}.")
    return features


def erase(
    lm: LanguageModel,
    saes: Dictionaries,
    concept: Concept,
    features: Sequence[Feature],
    tau: float = 0.5,
    mu: float = 16.0,
    n_questions: int = 12,
    neuron_signs: dict | None = None,
) -> Erased:
    """The PISCES edit of some features and its control, each asked the first `n_questions` of every set on dev.

    Raises ConceptLabError for settings out of range: tau lies in [0, 1), mu in (0, 200], questions are 4 to 60.
    """
    if not 0 <= tau < 1:
        raise ConceptLabError(f"tau is the share of the largest row that a row must exceed: 0 to below 1, not {tau:g}.")
    if not 0 < mu <= MOST_STRENGTH:
        raise ConceptLabError(f"mu is the strength of the edit: above 0 and at most {MOST_STRENGTH:g}, not {mu:g}.")
    if not 4 <= n_questions <= 60:
        raise ConceptLabError(f"Ask 4 to 60 questions of every set, not {n_questions}.")
    edit = pisces_edit(lm, saes, features, tau, mu, neuron_signs)
    return judged(lm, concept, edit, other_features_edit(lm, saes, features, edit), n_questions)


def judged(lm: LanguageModel, concept: Concept, edit: WeightEdit, control: WeightEdit, n_questions: int = 12) -> Erased:
    """The original, an edit and its control, each asked the first `n_questions` of every set on dev."""
    sets = concept_questions(concept, "dev")
    asked = {name: sets[name][:n_questions] for name in SETS if name in sets}
    scores = {}
    for state, change in zip(STATES, (None, edit, control), strict=True):
        with applied(change, lm):
            scores[state] = {name: score_questions(lm, questions) for name, questions in asked.items()}
    return Erased(edit, asked, scores)


def erasure_figure(found: Erased, title: str) -> Figure:
    """Share of right answers by set of questions: original, edited, and the control, with intervals over questions."""
    states = {
        state: [bootstrap(scores.correct.float(), 1_000) for scores in by_set.values()]
        for state, by_set in found.scores.items()
    }
    return state_bars(states, list(found.asked), list(STATES.values()), title, "answered rightly", 0.25)


def answers_html(found: Erased, n: int = 6) -> str:
    """Questions about the concept with the likeliest option before, after, and under the control."""
    head = "".join(f"<th scope='col'>{escape(text)}</th>" for text in ("question", "right", *found.scores))
    rows = []
    for i, question in enumerate(found.asked["target"][:n]):
        picked = [question.options[int(by_set["target"].logprobs[i].argmax())] for by_set in found.scores.values()]
        cells = [question.q, question.options[question.answer], *picked]
        rows.append("<tr>" + "".join(f"<td style='text-align:left'>{escape(c)}</td>" for c in cells) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def erasure_desk(
    lm: LanguageModel,
    saes: Dictionaries,
    concepts: Mapping[str, tuple[Concept, Sequence[Feature]]],
    neuron_signs: dict | None = None,
) -> Panel:
    """Concept, features, tau and mu to a scorecard with its control, and answers before and after.

    `concepts`: title -> the concept and features to begin with. `panel.last` is what was erased last (`Erased`).
    """
    titles = list(concepts)
    places = words_field("", "features", "layer:feature, separated by commas")
    choice = ipywidgets.Dropdown(options=titles, description="concept")

    def begin(_change: object = None) -> None:
        places.value = ", ".join(
            f"{f.layer}:{'-' if f.sign < 0 else ''}{f.index}" for f in concepts[str(choice.value)][1]
        )

    begin()
    choice.observe(begin, "value")
    controls = {
        "title": choice, "features": places, "tau": decimal(0.5, "tau (0 to 1)"),
        "mu": decimal(16.0, "mu (strength)"), "n_questions": whole_number(12, "questions"),
    }  # fmt: skip

    def draw(title: str, features: str, tau: float, mu: float, n_questions: int) -> tuple[Figure, str]:
        concept, chosen = concepts[title][0], feature_places(features, saes)
        found = erase(lm, saes, concept, chosen, tau, mu, n_questions, neuron_signs)
        panel.last = found
        return erasure_figure(found, f"{title}: {len(chosen)} features, mu {mu:g}"), answers_html(found)

    panel = Panel(controls, draw, "Erase", start=False)
    return panel


@dataclass(frozen=True)
class Attacked:
    """One attack on several models, question by question."""

    attack: str
    strengths: tuple[str, ...]
    values: Mapping[str, Sequence[object]]  # model -> the evaluation at each strength
    transcript: tuple[tuple[str, str], ...]  # prompts and answers of the edited model, where the attack asks anything


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
    questions = known_questions(lm, concept, n_questions, "dev")
    budget = Budget(steps=steps, strengths=(("relearning", (0, steps)), ("relearning_unrelated", (0, steps))))
    setting = setting_for(concept, questions, budget)
    values: dict[str, Sequence[object]] = {}
    strengths: tuple[str, ...] = ("",)
    told: tuple[tuple[str, str], ...] = ()
    for name, edit in edits.items():
        result = run_attack(attack, lm, edit, setting)
        values[name] = list(result.values)
        strengths = tuple(result.labels or map(str, result.steps))
        if edit is not None and result.transcript and not told:
            told = tuple((x.prompt, x.answer) for x in result.transcript[:6])
    return Attacked(attack, strengths, values, told)


def attack_figure(found: Attacked, title: str) -> Figure:
    """The margin of the right answer against the attack's strength, one line per model, intervals over questions."""
    curves = {
        name: {s: bootstrap(per_question(v), 1_000) for s, v in zip(found.strengths, values, strict=True)}
        for name, values in found.values.items()
    }
    return strength_curves(curves, title, f"strength of {found.attack.replace('_', ' ')}", "margin (nats)", 0.0)


def transcript_html(found: Attacked) -> str:
    """What was asked and answered, or that this attack asks nothing."""
    if not found.transcript:
        return "<p>This attack asks nothing: it changes weights or reads them.</p>"
    rows = (f"<dt>{escape(p[-400:])}</dt><dd><b>{escape(a)}</b></dd>" for p, a in found.transcript)
    return f"<dl>{''.join(rows)}</dl>"


def attack_desk(lm: LanguageModel, edits: Mapping[str, Intervention | None], concept: Concept) -> Panel:
    """Attack and budget to a curve over all models in `edits`, and a transcript."""
    controls = {
        "attack": ipywidgets.Dropdown(options=list(LIVE_ATTACKS), description="attack"),
        "steps": whole_number(6, "steps of training"),
        "n_questions": whole_number(12, "questions"),
    }

    def draw(attack: str, steps: int, n_questions: int) -> tuple[Figure, str]:
        found = attack_edits(lm, edits, concept, attack, steps, n_questions)
        return attack_figure(found, f"{concept.title} under {attack.replace('_', ' ')}"), transcript_html(found)

    return Panel(controls, draw, "Attack", start=False)
