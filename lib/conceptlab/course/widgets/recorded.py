"""States of the widgets as they were on one machine, for the static site, which has no model to ask.

`python -m conceptlab.course states` runs the functions behind the widgets and writes data/widgets/<model>.json: plain
numbers and words, from which the site draws with the same functions. The feature browser needs no record: its labels
and texts lie in data/ already.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...concept_vectors import search
from ...core import ConceptLabError, atomic_path, data_dir
from ...data import load_concept
from ...edits import WeightEdit
from ...erasure import Feature, Shared
from ...models import LanguageModel
from .attacking import LIVE_ATTACKS, attack_edits
from .desks import LIVE_METHODS, erase
from .explore import vector_effects

SEARCHED = ("japan", "golf", "harry_potter", "astronomy")  # the best vector for each, in the explorer
HOLDS = (-8.0, 2.0, 8.0)
PROMPT = "The weather today is"
ERASED = ("japan", "chemical_elements")  # at the desk; their edits ship with the lab's table
AT_THE_DESK = (  # method, how many of the edit's features (None: all), mu
    ("pisces", None, 16.0), ("pisces", None, 4.0), ("pisces", 1, 16.0), ("words", 0, 1.0), ("words_both", 0, 1.0),
)  # fmt: skip
N_QUESTIONS, STEPS = 12, 6

Say = Callable[[str], object]


def states_path(model: str) -> Path:
    """Where the record of a model lies."""
    return data_dir() / "widgets" / f"{model}.json"


def write_states(lm: LanguageModel, say: Say = print) -> Path:
    """Run every state and write the record; about ten minutes on two cores."""
    found: dict[str, Any] = {"model": lm.name, "prompt": PROMPT, "n_questions": N_QUESTIONS, "steps": STEPS}
    for name, made in (("vectors", _vectors(lm)), ("erasures", _erasures(lm)), ("attacks", _attacks(lm))):
        found[name] = list[dict[str, Any]]()
        for state in made:
            found[name].append(state)
            say(f"{name}: {len(found[name])}")
    path = states_path(lm.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(found, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    return path


def read_states(model: str) -> dict[str, Any] | None:
    """The record of a model; None where there is none. Raises ConceptLabError for one that cannot be read."""
    path = states_path(model)
    if not path.exists():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError:
        raise ConceptLabError(
            f"{path.name} is no record of the widgets; run `python -m conceptlab.course states`."
        ) from None


def _vectors(lm: LanguageModel) -> Iterator[dict[str, Any]]:
    for name in SEARCHED:
        concept = load_concept(name)
        best = search(lm, concept.words, 1)[0]
        for hold in HOLDS:
            effects = vector_effects(lm, best.layer, best.neuron, hold, PROMPT)
            short = {panel: [(token, float(f"{x:.3g}")) for token, x in bars] for panel, bars in effects.items()}
            place = {"layer": best.layer, "neuron": best.neuron}
            yield {"found_for": concept.title, **place, "hold": hold, "effects": short}


def _shipped(lm: LanguageModel, concept: str, method: str) -> WeightEdit:
    """An edit that came with the lab's table."""
    return WeightEdit.load(data_dir() / "results" / f"lab_{lm.name}" / f"{concept}_{method}.safetensors")


def _erasures(lm: LanguageModel) -> Iterator[dict[str, Any]]:
    for name in ERASED:
        concept = load_concept(name)
        shared, edit = Shared(lm, concept), _shipped(lm, name, "pisces")
        features = [Feature(*place) for place in edit.info["features"]]
        for method, n, mu in AT_THE_DESK:
            chosen, tau = features[:n], float(edit.info["tau"])
            found = erase(lm, shared.dictionaries, concept, chosen, tau, mu, N_QUESTIONS, shared.signs, method)
            shown = asdict(found.shown())
            shown["right"] = {
                state: {of: [int(x) for x in right] for of, right in by_set.items()}
                for state, by_set in shown["right"].items()
            }
            places = [f"{f.layer}:{f.index}" for f in chosen]
            settings = {"method": method, "features": places, "tau": tau, "mu": mu, "shown": LIVE_METHODS[method].shown}
            yield {"concept": concept.title, **settings, **shown}


def _attacks(lm: LanguageModel) -> Iterator[dict[str, Any]]:
    name = ERASED[0]
    concept = load_concept(name)
    methods = {"PISCES": "pisces", "same rows, other features": "other_features"}
    edits = {"original": None} | {label: _shipped(lm, name, method) for label, method in methods.items()}
    for attack in LIVE_ATTACKS:
        found = asdict(attack_edits(lm, edits, concept, attack, STEPS, N_QUESTIONS))
        short = {
            label: [[float(f"{x:.4g}") for x in values] for values in lines] for label, lines in found["values"].items()
        }
        yield {"concept": concept.title, **found, "values": short}
