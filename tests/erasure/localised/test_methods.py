"""The methods of this folder on the interface: fitted through `Shared`, applied, restored, equal for equal seeds."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from conceptlab.core import NotPossible
from conceptlab.data import load_concept
from conceptlab.edits import WeightEdit
from conceptlab.erasure import Fitted, Shared, get_method, hand_picked, methods, pisces_edit
from conceptlab.erasure.localised.read_side import read_side_edit
from dictionaries import make_sae
from sizes import SMALL

SIZES = {  # so that a fit of a tiny model takes a second
    "rmu": {"steps": 2, "batch_size": 2, "n_ctx": 12}, "rmu_ablation": {"steps": 2, "batch_size": 2, "n_ctx": 12},
    "ssd": {"alpha": 1.0, "n_texts": 2, "n_ctx": 12}, "elm": {"steps": 1, "batch_size": 2, "n_ctx": 12},
    "memit": {"steps": 2, "n_facts": 2, "leak": 0.5}, "alphaedit": {"steps": 2, "n_facts": 2, "leak": 0.5},
    "rocr": {"leak": 0.5}, "needle": {"n": 3, "steps": 1, "batch_size": 2, "n_ctx": 12},
    "lookup": {"n": 3, "n_facts": 2},
    "snmf": {"k": 8, "iterations": 5, "deepest": 1.0, "min_ratio": 0.0, "tau": 0.8}, "tars": {"n": 3},
}  # fmt: skip
NAMES = [
    name for name, m in methods().items()
    if m.fit.__module__.startswith("conceptlab.erasure.localised") or name.startswith("snmf")
]  # fmt: skip
WRITES = {"read_side": ("gate_proj", "up_proj"), "elm": ("gate_proj", "up_proj", "down_proj")}


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.5, tie_word_embeddings=True)


def parts(lm):
    """What methods share, with the edits that some of them start from at a fixed strength."""
    saes = {layer: make_sae(lm, layer) for layer in (0, 1)}
    picked = hand_picked(lm, saes, [(0, 3), (1, 5)])  # one that a later layer reads, one that none does
    shared = Shared(lm, load_concept("golf"), saes, SMALL, features=picked)
    pisces = get_method("pisces")
    config = replace(pisces.config, n=2, tau=0.6, mu=2.0)
    edit = pisces_edit(lm, saes, shared.features[:2], 0.6, 2.0, shared.signs)
    shared.keep_chosen(Fitted("pisces", config, edit, {"n": 2.0}))
    for name in ("rocr", "snmf"):
        if name in methods():
            method = get_method(name)
            found = sized(name)
            edit = method.fit(lm, shared.concept, found, shared)
            shared.keep_chosen(Fitted(name, found, edit, {}))
    return shared


def sized(name):
    return replace(get_method(name).config, **SIZES.get(name, {}))


def test_every_method_fits_restores_and_repeats_itself(lm):
    before, edits = lm.fingerprint(), []
    for shared in (parts(lm), parts(lm)):
        edits.append({name: get_method(name).fit(lm, shared.concept, sized(name), shared) for name in NAMES})
        assert lm.fingerprint() == before
    assert set(SIZES) <= set(NAMES) and not lm.is_hooked
    for name, edit in edits[0].items():
        assert isinstance(edit, WeightEdit) and edit.changes, name
        with edit.applied(lm):
            assert lm.fingerprint() != before, f"{name} changes something"
        assert lm.fingerprint() == before, name
        for weight, change in edit.changes.items():
            assert any(part in weight for part in WRITES.get(name.split("+")[0], ("down_proj",))) or "+" in name
            again = edits[1][name].changes[weight].dense()
            assert (change.dense() - again).abs().max() <= 1e-6 * again.abs().max(), (name, weight)


def test_what_no_later_layer_reads_cannot_be_taken_out_of_a_reading(lm):
    with pytest.raises(NotPossible, match="the last layer, and no later one reads"):
        read_side_edit(lm, {lm.n_layers - 1: torch.ones(1, lm.d_model)}, 1.0)


def test_scaled_methods_train_once_for_all_scales(lm, monkeypatch):
    shared, calls = parts(lm), []
    for name in ("rmu", "needle", "elm"):
        method = get_method(name)
        module = __import__(method.fit.__module__, fromlist=["x"])
        real = getattr(module, f"{name}_edit")
        monkeypatch.setattr(module, f"{name}_edit", lambda *a, real=real, name=name: calls.append(name) or real(*a))
        half, full = (method.fit(lm, shared.concept, replace(sized(name), scale=s), shared) for s in (0.5, 1.0))
        for weight, change in full.changes.items():
            assert (half.changes[weight].dense() - 0.5 * change.dense()).abs().max() < 1e-6
    assert calls == ["rmu", "needle", "elm"]


def test_the_null_of_the_remap_has_its_strength_and_layers(lm, monkeypatch):
    seen = []
    module = __import__("conceptlab.erasure.localised.remap", fromlist=["x"])
    instead = lambda lm, concept, config, shared: seen.append(config) or WeightEdit.of(lm, {})  # noqa: E731
    monkeypatch.setattr(module, "fit_remap", instead)
    chosen = replace(get_method("rocr").config, strength=3.0, n_layers=1)
    shared = SimpleNamespace(chosen=lambda name: SimpleNamespace(config=chosen))
    null = get_method("random_targets")
    null.fit(lm, load_concept("golf"), null.config, shared)
    assert seen == [replace(chosen, targets="random")]
