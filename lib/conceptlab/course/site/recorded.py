"""The widgets as static pages: a recorded set of states each, chosen by radio buttons, without a script or a model.

What is shown is made by the functions that feed the widgets; the records are those of `widgets/recorded.py`, and the
feature browser's states come from the labels and texts in data/.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from html import escape
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from ...autointerp import labelled_layers
from ...core import atomic_path
from ..plots.sides import two_sided_bars
from .browser import records_of
from .contexts import read_contexts

MODEL = "smollm2-135m"
SEARCHES = ("river", "Japan", "Halloween", "golf", "Harry Potter", "war")
HITS = ("first hit", "second hit", "third hit")
CALLS = {  # in a notebook's cell -> the page with recorded states
    "vector_explorer(": "recorded_vectors", "search_widget(": "recorded_vectors",
    "FeatureBrowser(": "recorded_features", "feature_widget(": "recorded_features",
    "with_browser(": "recorded_features", "erasure_desk(": "recorded_erasure", "attack_desk(": "recorded_attack",
}  # fmt: skip
TITLES = {
    "recorded_vectors": "Vector explorer",
    "recorded_features": "Feature browser, step by step",
    "recorded_erasure": "Erasure desk",
    "recorded_attack": "Attack desk",
}


class State(NamedTuple):
    """One state of a widget: the option chosen on every axis, and what is shown then."""

    chosen: tuple[str, ...]
    html: str


Draw = Callable[[str, Callable[[], Figure], str], str]  # name, figure, alternative text -> the HTML of the picture


def recorded_names() -> set[str]:
    """Documents of the widgets that there are; without a record only the feature browser has one."""
    from ..widgets import recorded  # the widgets use this room's contexts, so this room is read first

    return set(TITLES) if recorded.states_path(MODEL).exists() else {"recorded_features"}


def recorded_pages(folder: Path) -> dict[str, str]:
    """document -> Markdown; figures go to `folder`, and one that is there from the same record is left."""
    from .. import widgets
    from ..widgets.recorded import read_states

    states = read_states(MODEL)
    stamp = hashlib.sha256(repr(states).encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    drawn = set[str]()

    def draw(name: str, figure: Callable[[], Figure], alt: str) -> str:
        path = folder / f"{name}-{stamp}.png"
        drawn.add(path.name)
        if not path.exists():
            content = widgets.png(figure())
            with atomic_path(path) as temporary:
                temporary.write_bytes(content)
        picture = f'<img src="recorded/{path.name}" alt="{escape(alt, quote=True)}" loading="lazy">'
        return f'<div class="scroll" tabindex="0" role="region" aria-label="Figure">{picture}</div>'

    pages = {"recorded_features": _page("recorded_features", FEATURES, ("search for", "show"), feature_states())}
    if states:
        told = (
            f"The record is of {states['model']}; figures and tables are drawn from it by the widget's own functions."
        )
        made = {
            "recorded_vectors": (VECTORS, ("vector", "hold its neuron at"), vector_states(states, draw)),
            "recorded_erasure": (ERASURE, ("concept", "method and features"), erasure_states(states, draw)),
            "recorded_attack": (ATTACK, ("attack",), attack_states(states, draw)),
        }
        pages |= {name: _page(name, f"{text}\n\n{told}", axes, found) for name, (text, axes, found) in made.items()}
    for old in folder.glob("*.png"):
        if old.name not in drawn:
            old.unlink()
    return pages


VECTORS = (
    "In JupyterLab, `vector_explorer(lm)` takes any layer, any neuron, a value to hold it at, and a prompt. Here are "
    "some of its states: for a few concepts the vector one end of which promotes their words most, held at three "
    "values. On the left the two ends of the vector, on the right what holding its neuron does to the next word."
)
FEATURES = (
    "In JupyterLab, `FeatureBrowser(records, contexts)` searches by word, goes to the next hit or to any feature, and "
    "hands one to the erasure desk. Here are the first hits of a few searches; "
    "[the search over all features](/browser.md) works on this site, too."
)
ERASURE = (
    "In JupyterLab, `erasure_desk(lm, saes, concepts)` takes any of the sixteen concepts, a method, features that are "
    "switched on and off, tau and mu, and shows right answers beside a control, efficacy and specificity, and the "
    "answers before and after. Here are some of its states, on *dev* questions. With so few questions the intervals "
    "are wide: compare the edit with its control before reading anything into it."
)
ATTACK = (
    "In JupyterLab, `attack_desk(lm, edits, concept)` takes an edit, an attack and a budget, and shows what the attack "
    "brings back, and what was asked and answered. Here is every attack that it runs live, with one budget, on the "
    "original, on the PISCES edit of Japan, and on its control."
)


def vector_states(states: Mapping[str, Any], draw: Draw) -> Iterator[State]:
    """Vector by vector, held at one value after the other."""
    from ..widgets.explore import vector_alt, vector_title

    title = vector_title(states["model"], states["prompt"])
    for i, found in enumerate(states["vectors"]):
        place = f"{found['found_for']}: layer {found['layer']}, neuron {found['neuron']}"
        effects = {panel: [(str(t), float(x)) for t, x in bars] for panel, bars in found["effects"].items()}
        picture = draw(f"vector{i}", partial(two_sided_bars, effects, title), vector_alt(effects, title))
        yield State((place, f"{found['hold']:g}"), picture)


def feature_states() -> Iterator[State]:
    """The first hits of a few searches."""
    from ..widgets import feature_html, label_hits

    layers = labelled_layers(MODEL)
    texts = {layer: read_contexts(MODEL, layer) for layer in layers}
    for words in SEARCHES:
        hits = [hit.record for hit in label_hits(records_of(MODEL), words, contexts=texts)]
        for place, name in enumerate(HITS):
            if place < len(hits):
                record = hits[place]
                shown = feature_html(record, texts.get(record.layer, {}).get(record.feature, ()))
            else:
                shown = "<p>There is no such hit.</p>"
            yield State((words, name), f"<p>hit {place + 1} of {len(hits)}</p>{shown}")


def erasure_states(states: Mapping[str, Any], draw: Draw) -> Iterator[State]:
    """Concept by concept, with one setting after the other."""
    from ..widgets import ShownErasure, answers_html, erasure_figure
    from ..widgets.desks import efficacy_html, erasure_alt, erasure_title

    for i, found in enumerate(states["erasures"]):
        shown = ShownErasure(found["right"], found["rows"])
        n, mu = len(found["features"]), found["mu"]
        title = erasure_title(found["concept"], found["method"], n, mu)
        setting = f"{found['shown']}, mu {mu:g}"
        if found["method"] == "pisces":
            setting = f"PISCES, {'one feature' if n == 1 else 'all its features'}, mu {mu:g}"
        used = f"<p>features {', '.join(found['features'])}, tau {found['tau']:g}</p>" if n else ""
        picture = draw(f"erasure{i}", partial(erasure_figure, shown, title), erasure_alt(shown, title))
        table = f'<div class="scroll" tabindex="0" role="region" aria-label="Answers">{answers_html(shown)}</div>'
        yield State((found["concept"], setting), picture + used + efficacy_html(shown) + table)


def attack_states(states: Mapping[str, Any], draw: Draw) -> Iterator[State]:
    """One attack after the other."""
    from ..widgets import Attacked, attack_figure, transcript_html
    from ..widgets.attacking import attack_alt, attack_title

    for i, found in enumerate(states["attacks"]):
        shown = Attacked(found["attack"], tuple(found["strengths"]), found["values"], found["transcript"])
        title = attack_title(found["concept"], shown.attack)
        picture = draw(f"attack{i}", partial(attack_figure, shown, title), attack_alt(shown, title))
        yield State((shown.attack.replace("_", " "),), picture + transcript_html(shown))


def _page(name: str, text: str, axes: Sequence[str], states: Iterator[State]) -> str:
    made = desk_html(name, axes, list(states))
    head = "---\nhtml_theme.sidebar_secondary.remove: true\n---\n"
    return f"{head}# {TITLES[name]}\n\n{text}\n\n```{{raw}} html\n{made}\n```\n"


def desk_html(name: str, axes: Sequence[str], states: Sequence[State]) -> str:
    """Radio buttons for every axis, and below them the state that they choose; a style sheet does the choosing.

    A browser that does not know `:has` shows all states, one below the other. Every combination must have its state.
    """
    options = [list(dict.fromkeys(state.chosen[k] for state in states)) for k in range(len(axes))]
    shown = {tuple(axis.index(x) for axis, x in zip(options, s.chosen, strict=True)): s for s in states}
    rules, parts = [], []
    for places in product(*(range(len(axis)) for axis in options)):
        checked = "".join(f":has(#{name}-{k}-{i}:checked)" for k, i in enumerate(places))
        kind = "s" + "-".join(map(str, places))
        rules.append(f"#{name}{checked} .{kind} {{ display: block }}")
        state = shown[places]
        about = escape(", ".join(state.chosen), quote=True)
        parts.append(f'<section class="state {kind}" aria-label="{about}">{state.html}</section>')
    fields = []
    for k, (axis, found) in enumerate(zip(axes, options, strict=True)):
        labels = "".join(
            f'<label><input type="radio" name="{name}-{k}" id="{name}-{k}-{i}"{" checked" * (not i)}> '
            f"{escape(option)}</label>"
            for i, option in enumerate(found)
        )
        fields.append(f"<fieldset><legend>{escape(axis)}</legend>{labels}</fieldset>")
    return f'<style>{" ".join(rules)}</style><div class="desk" id="{name}">{"".join([*fields, *parts])}</div>'
