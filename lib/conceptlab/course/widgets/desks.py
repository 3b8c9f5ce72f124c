"""Erasure desk: edit a concept with settings of one's own, beside a control of the same kind and size."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

import ipywidgets
from matplotlib.figure import Figure
from torch import Tensor

from ...core import ConceptLabError, data_dir, proportion
from ...data import Concept, Question, list_concepts, load_concept
from ...edits import WeightEdit, applied
from ...erasure import (
    Dictionaries,
    Feature,
    Shared,
    embedding_edit,
    other_features_edit,
    pisces_edit,
    random_word_atoms,
    word_atoms,
)
from ...evaluation import (
    SETS,
    QuestionScores,
    concept_questions,
    harmonic_mean,
    relative_accuracy,
    score_questions,
)
from ...models import LanguageModel
from ..erasing import tokens_of
from ..plots.picture import state_bars
from .panel import Panel, decimal, whole_number, words_field

Signs = Mapping[int, Tensor] | None  # layer -> sign of each neuron on a concept
SignsOf = Callable[[Concept], Signs]


class Live(NamedTuple):
    """A method that the desk runs in seconds."""

    shown: str  # in the list of methods
    control: str  # what its control changes instead
    usual: float  # its strength to begin with
    most: float  # beyond which no table of the course goes


LIVE_METHODS = {
    "pisces": Live("PISCES (features)", "same rows, other features", 16.0, 200.0),
    "words": Live("words, where they are read", "as many other words", 1.0, 3.0),
    "words_both": Live("words, read and written", "as many other words", 1.0, 3.0),
}
COLOURS = ("ink", "target", "control")  # original, edited, its control


@dataclass(frozen=True)
class ShownErasure:
    """What is shown of an erasure, in plain values, so that it can be recorded."""

    right: Mapping[str, Mapping[str, Sequence[int]]]  # state -> set -> 1 for every question answered rightly, else 0
    rows: Sequence[Sequence[str]]  # question about the concept, its right option, and the option taken in every state


@dataclass(frozen=True)
class Erased:
    """What an edit does on dev questions, beside its control."""

    edit: WeightEdit
    asked: Mapping[str, Sequence[Question]]  # set -> questions
    scores: Mapping[str, Mapping[str, QuestionScores]]  # original, edited, control -> set -> scores

    def shown(self) -> ShownErasure:
        """Right answers and options taken, as plain values."""
        right = {
            state: {name: [int(x) for x in scores.correct.tolist()] for name, scores in by_set.items()}
            for state, by_set in self.scores.items()
        }
        rows = []
        for i, q in enumerate(self.asked["target"]):
            picked = [q.options[int(by_set["target"].logprobs[i].argmax())] for by_set in self.scores.values()]
            rows.append([q.q, q.options[q.answer], *picked])
        return ShownErasure(right, rows)


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
    neuron_signs: Signs = None,
    method: str = "pisces",
) -> Erased:
    """An edit and its control, each asked the first `n_questions` of every set on dev.

    `features` and `tau` are those of PISCES; for a method of words `mu` is delta, 1 for words that read like an average
    token. Raises ConceptLabError for a method that is too slow to be run live and for settings out of range: tau lies
    in [0, 1), mu above 0 and below what any table of the course has, questions are 4 to 60.
    """
    if method not in LIVE_METHODS:
        raise ConceptLabError(f"Live methods are {', '.join(LIVE_METHODS)}; {method!r} takes `conceptlab erase`.")
    if not 0 <= tau < 1:
        raise ConceptLabError(f"tau is the share of the largest row that a row must exceed: 0 to below 1, not {tau:g}.")
    most = LIVE_METHODS[method].most
    if not 0 < mu <= most:
        raise ConceptLabError(f"mu is the strength of the edit: above 0 and at most {most:g} for {method}, not {mu:g}.")
    if not 4 <= n_questions <= 60:
        raise ConceptLabError(f"Ask 4 to 60 questions of every set, not {n_questions}.")
    if method == "pisces":
        edit = pisces_edit(lm, saes, features, tau, mu, None if neuron_signs is None else dict(neuron_signs))
        control = other_features_edit(lm, saes, features, edit)
    else:
        side, atoms = "both" if method == "words_both" else "input", word_atoms(lm, concept)
        edit = embedding_edit(lm, atoms, mu, side)
        control = embedding_edit(lm, random_word_atoms(lm, concept, atoms), mu, side)
    return judged(lm, concept, edit, control, n_questions, LIVE_METHODS[method].control)


def judged(
    lm: LanguageModel, concept: Concept, edit: WeightEdit, control: WeightEdit, n_questions: int = 12, named: str = ""
) -> Erased:
    """The original, an edit and its control (`named`: what it is), each asked the first questions of every dev set."""
    sets = concept_questions(concept, "dev")
    asked = {name: sets[name][:n_questions] for name in SETS if name in sets}
    scores = {}
    states = {"original": None, "edited": edit, named or LIVE_METHODS["pisces"].control: control}
    for state, change in states.items():
        with applied(change, lm):
            scores[state] = {name: score_questions(lm, questions) for name, questions in asked.items()}
    return Erased(edit, asked, scores)


def erasure_figure(found: Erased | ShownErasure, title: str) -> Figure:
    """Share of right answers by set of questions: original, edited, and the control, with intervals over questions."""
    shown = found.shown() if isinstance(found, Erased) else found
    states = {
        state: [proportion(sum(right), len(right)) for right in by_set.values()]
        for state, by_set in shown.right.items()
    }
    sets = list(next(iter(shown.right.values())))
    return state_bars(states, sets, COLOURS, title, "answered rightly", 0.25)


def erasure_alt(found: ShownErasure, title: str) -> str:
    """What the figure shows, in words and numbers."""
    parts = []
    for state, by_set in found.right.items():
        told = ", ".join(f"{sum(right)} of {len(right)} {name}" for name, right in by_set.items())
        parts.append(f"{state}: {told}")
    return f"{title}. Right answers by set of questions. {'; '.join(parts)}."


def answers_html(found: Erased | ShownErasure, n: int = 6) -> str:
    """Questions about the concept with the likeliest option before, after, and under the control."""
    shown = found.shown() if isinstance(found, Erased) else found
    head = "".join(f"<th scope='col'>{escape(text)}</th>" for text in ("question", "right", *shown.right))
    rows = [
        "<tr>" + "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in shown.rows[:n]
    ]
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def efficacy_html(found: Erased | ShownErasure) -> str:
    """Efficacy and specificity in one line: of edit and control, from all questions asked, corrected for guessing."""
    shown = found.shown() if isinstance(found, Erased) else found
    (_, before), *others = shown.right.items()

    def share(value: float) -> str:
        return f"{value:.0%}" if math.isfinite(value) else "not measurable"

    told = []
    for state, after in others:
        left = {name: relative_accuracy(_mean(before[name]), _mean(after[name])) for name in before}
        spared = [x for name, x in left.items() if name != "target"]
        kept = float(harmonic_mean(spared)) if spared else math.nan
        told.append(f"{state}: efficacy {share(1 - left['target'])}, specificity {share(kept)}")
    n = max(map(len, before.values()))
    return f"<p>{escape('; '.join(told))} ({n} questions a set: too few to tell a small difference from chance).</p>"


def _mean(right: Sequence[int]) -> float:
    return sum(right) / len(right)


class Start(NamedTuple):
    """What the desk begins with for one concept."""

    concept: Concept
    features: Sequence[Feature]
    tau: float = 0.5
    mu: float = LIVE_METHODS["pisces"].usual


def desk_starts(lm: LanguageModel, own: Mapping[str, Start] | None = None) -> dict[str, Start]:
    """Title -> the features, tau and mu that the lab's table chose for a concept on dev, behind `own` ones.

    A model without such a table has only `own` ones.
    """
    found = dict(own or {})
    for name in list_concepts():
        path, concept = data_dir() / "results" / f"lab_{lm.name}" / f"{name}_pisces.safetensors", load_concept(name)
        if path.exists() and concept.title not in found:
            info = WeightEdit.load(path).info
            features = [Feature(*place) for place in info["features"]]
            found[concept.title] = Start(concept, features, float(info["tau"]), float(info["mu"]))
    return found


def signs_of(lm: LanguageModel, saes: Dictionaries, known: Mapping[str, Signs] | None = None) -> SignsOf:
    """A function from a concept to its neurons' signs: every concept has its own, from texts about it.

    They take half a minute on two cores, once a concept; `known`: concept's name -> signs that are there already.
    """
    kept = dict(known or {})

    def found(concept: Concept) -> Signs:
        if concept.name not in kept:
            kept[concept.name] = Shared(lm, concept, saes).signs
        return kept[concept.name]

    return found


class FeatureSwitches(ipywidgets.VBox):
    """The features of an edit: a box to tick for each that a concept begins with, and a field for further ones."""

    def __init__(self, lm: LanguageModel):
        self.lm, self.ticks = lm, dict[str, ipywidgets.Checkbox]()
        self.further = words_field("", "further features", "such as 6:828, 24:3407")
        super().__init__([self.further])

    def offer(self, features: Sequence[Feature]) -> None:
        """Show these, all of them on, in place of what was there."""
        names = [f"{f.layer}:{'-' if f.sign < 0 else ''}{f.index}" for f in features]
        fires = tokens_of(self.lm, features)
        told = [words if words.startswith("(") else f"fires on {words}" for words in fires]
        layout = ipywidgets.Layout(width="auto")
        self.ticks = {
            name: ipywidgets.Checkbox(True, description=f"{name} {words}", indent=False, layout=layout)
            for name, words in zip(names, told, strict=True)
        }
        self.further.value = ""
        self.children = (*self.ticks.values(), self.further)

    def add(self, place: str) -> None:
        """One more feature, as another widget hands it on."""
        if place in self.ticks:
            self.ticks[place].value = True
        elif place not in re.split(r"[,\s]+", self.further.value):
            self.further.value = ", ".join(filter(None, (self.further.value.strip(" ,"), place)))

    @property
    def value(self) -> str:
        """The features that are on, as `feature_places` reads them."""
        return ", ".join(
            [name for name, tick in self.ticks.items() if tick.value] + [self.further.value] * bool(self.further.value)
        )


def erasure_desk(
    lm: LanguageModel,
    saes: Dictionaries,
    concepts: Mapping[str, Start | tuple[Concept, Sequence[Feature]]],
    neuron_signs: Signs | SignsOf | None = None,
) -> Panel:
    """Concept, method, features on and off, tau and mu to bars of right answers beside a control, efficacy and
    specificity, and answers before and after.

    `concepts`: title -> the concept and what to begin with (`desk_starts`). `neuron_signs`: those of the one concept,
    or for several a function that finds them (`signs_of`). `panel.last` is what was erased last (`Erased`);
    `panel.controls["features"].add("6:828")` switches a feature on from elsewhere.
    """
    starts = {title: Start(*start) for title, start in concepts.items()}
    signs = neuron_signs if callable(neuron_signs) else lambda _: neuron_signs
    places, tau = FeatureSwitches(lm), decimal(0.5, "tau (0 to 1)")
    mu = decimal(LIVE_METHODS["pisces"].usual, "mu (strength)")
    choice = ipywidgets.Dropdown(options=list(starts), description="concept")
    options = [(live.shown, name) for name, live in LIVE_METHODS.items()]
    method = ipywidgets.Dropdown(options=options, description="method")

    def usual(_change: object = None) -> None:
        own = method.value == "pisces"
        mu.value = starts[str(choice.value)].mu if own else LIVE_METHODS[str(method.value)].usual
        places.layout.display = "" if own else "none"

    def begin(_change: object = None) -> None:
        start = starts[str(choice.value)]
        places.offer(start.features)
        tau.value = start.tau
        usual()

    begin()
    choice.observe(begin, "value")
    method.observe(usual, "value")
    controls = {
        "title": choice, "method": method, "features": places, "tau": tau, "mu": mu,
        "n_questions": whole_number(12, "questions"),
    }  # fmt: skip

    def draw(title: str, method: str, features: str, tau: float, mu: float, n_questions: int) -> tuple[Figure, str]:
        concept, own = starts[title].concept, method == "pisces"
        chosen = feature_places(features, saes) if own else []
        found = erase(
            lm, saes, concept, chosen, tau, mu, n_questions, signs(concept) if own else None, method
        )  # fmt: skip
        panel.last = found
        figure = erasure_figure(found, erasure_title(title, method, len(chosen), mu))
        return figure, efficacy_html(found) + answers_html(found)

    panel = Panel(controls, draw, "Erase", start=False)
    return panel


def erasure_title(concept: str, method: str, n_features: int, mu: float) -> str:
    """The figure's title: the settings."""
    counted = f"{n_features} feature{'' if n_features == 1 else 's'}"
    return f"{concept}: {counted if method == 'pisces' else LIVE_METHODS[method].shown}, mu {mu:g}"
