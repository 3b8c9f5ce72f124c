"""States of the widgets as they were on one machine, for the static site, which has no model to ask.

`python -m conceptlab.course states` runs the functions behind the widgets and writes data/widgets/<model>.json: plain
numbers and words, from which the site draws with the same functions. The feature browser needs no record: its labels
and texts lie in data/ already.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ...concept_vectors import search
from ...core import ConceptLabError, atomic_path, data_dir, sha256
from ...data import Concept, load_concept
from ...edits import WeightEdit
from ...erasure import Feature, Shared, shipped_dictionaries
from ...models import LanguageModel, fingerprint
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
UNDER_ATTACK = {"PISCES": "pisces", "same rows, other features": "other_features"}  # edits of the first, under attack
OF_EDITS = (*((name, "pisces") for name in ERASED), *((ERASED[0], method) for method in UNDER_ATTACK.values()))
N_QUESTIONS, STEPS = 12, 6

Say = Callable[[str], object]
Make = Callable[[], dict[str, Any]]  # runs one state


def states_path(model: str) -> Path:
    """Where the record of a model lies."""
    return data_dir() / "widgets" / f"{model}.json"


def write_states(lm: LanguageModel, say: Say = print) -> Path:
    """Run every state and write the record; about ten minutes on two cores. An interruption loses one state.

    What an interrupted run left is taken up where model, edits, dictionaries and settings are the same.
    """
    settings = made_of(lm)
    path = states_path(lm.name)
    kept = path.with_suffix(".partial.json")
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    if {key: found.get(key) for key in settings} != settings:
        found = dict(settings)
    for name, made in (("vectors", _vectors(lm)), ("erasures", _erasures(lm)), ("attacks", _attacks(lm))):
        states = found.setdefault(name, [])
        for i, make in enumerate(made):
            if i < len(states):
                continue
            states.append(make())
            _write(kept, found)
            say(f"{name}: {len(states)}")
    _write(path, found)
    kept.unlink()
    return path


def made_of(lm: LanguageModel) -> dict[str, Any]:
    """What a record depends on: settings, and fingerprints of the model, of the edits and of the dictionaries."""
    saes = {str(layer): fingerprint(dict(sae.state_dict())) for layer, sae in shipped_dictionaries(lm).items()}
    asked = {
        "searched": SEARCHED, "holds": HOLDS, "erased": ERASED, "at_the_desk": AT_THE_DESK, "attacked": UNDER_ATTACK,
        "live_attacks": LIVE_ATTACKS, "prompt": PROMPT, "n_questions": N_QUESTIONS, "steps": STEPS,
    }  # fmt: skip
    prints = {"fingerprint": lm.fingerprint(), "edits": edit_sums(lm.name), "dictionaries": saes}
    return dict(json.loads(json.dumps({"model": lm.name} | asked | prints)))  # tuples as lists: as it is read back


def edit_sums(model: str) -> dict[str, str]:
    """The first digits of the checksum of every edit that a record is made of."""
    return {f"{name}_{method}": sha256(_edit_path(model, name, method))[:16] for name, method in OF_EDITS}


def _write(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(found, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


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


def _vectors(lm: LanguageModel) -> Iterator[Make]:
    for name in SEARCHED:
        concept = load_concept(name)
        best = search(lm, concept.words, 1)[0]
        place = {"found_for": concept.title, "layer": best.layer, "neuron": best.neuron}
        for hold in HOLDS:
            yield partial(_vector, lm, place, hold)


def _vector(lm: LanguageModel, place: dict[str, Any], hold: float) -> dict[str, Any]:
    effects = vector_effects(lm, place["layer"], place["neuron"], hold, PROMPT)
    short = {panel: [(token, float(f"{x:.3g}")) for token, x in bars] for panel, bars in effects.items()}
    return {**place, "hold": hold, "effects": short}


def _shipped(lm: LanguageModel, concept: str, method: str) -> WeightEdit:
    """An edit that came with the lab's table."""
    return WeightEdit.load(_edit_path(lm.name, concept, method))


def _edit_path(model: str, concept: str, method: str) -> Path:
    return data_dir() / "results" / f"lab_{model}" / f"{concept}_{method}.safetensors"


def _erasures(lm: LanguageModel) -> Iterator[Make]:
    for name in ERASED:
        concept = load_concept(name)
        shared, edit = Shared(lm, concept), _shipped(lm, name, "pisces")  # parts are made where one is asked for
        for method, n, mu in AT_THE_DESK:
            yield partial(_erasure, shared, edit, method, n, mu)


def _erasure(shared: Shared, shipped: WeightEdit, method: str, n: int | None, mu: float) -> dict[str, Any]:
    lm, concept, tau = shared.lm, shared.concept, float(shipped.info["tau"])
    chosen = [Feature(*place) for place in shipped.info["features"]][:n]
    found = erase(lm, shared.dictionaries, concept, chosen, tau, mu, N_QUESTIONS, shared.signs, method)
    places = [f"{f.layer}:{f.index}" for f in chosen]
    settings = {"method": method, "features": places, "tau": tau, "mu": mu, "shown": LIVE_METHODS[method].shown}
    return {"concept": concept.title, **settings, **asdict(found.shown())}


def _attacks(lm: LanguageModel) -> Iterator[Make]:
    name = ERASED[0]
    edits = {"original": None} | {label: _shipped(lm, name, method) for label, method in UNDER_ATTACK.items()}
    for attack in LIVE_ATTACKS:
        yield partial(_attack, lm, load_concept(name), edits, attack)


def _attack(lm: LanguageModel, concept: Concept, edits: Mapping[str, WeightEdit | None], attack: str) -> dict[str, Any]:
    found = asdict(attack_edits(lm, edits, concept, attack, STEPS, N_QUESTIONS))
    values = {label: [[float(f"{x:.4g}") for x in line] for line in lines] for label, lines in found["values"].items()}
    return {"concept": concept.title, **found, "values": values}
