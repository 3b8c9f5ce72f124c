"""Zeroed vectors and the controls: what they touch, and how large they are."""

from types import SimpleNamespace

import pytest
import torch

from conceptlab.core import NotPossible
from conceptlab.data import load_concept
from conceptlab.edits import LowRank, random_direction_edit, random_norm_edit
from conceptlab.erasure import Feature, pisces_edit, promoting_vectors, random_features, zeroed_edit
from conceptlab.erasure.controls import ControlConfig, fit_permuted_neurons, other_features_edit, random_features_edit
from dictionaries import make_sae


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.5)


def test_the_first_vectors_are_zeroed_and_no_others(lm):
    vectors = promoting_vectors(lm, load_concept("golf"), 12)
    places = [(v.layer, v.neuron) for v in vectors]
    assert len(set(places)) == len(places) == 12
    before = {layer: lm.value_vectors(layer).clone() for layer in (0, 1)}
    edit = zeroed_edit(lm, vectors, 5)
    with edit.applied(lm):
        for layer, old in before.items():
            now = lm.value_vectors(layer)
            gone = [neuron for where, neuron in places[:5] if where == layer]
            rest = [i for i in range(lm.d_mlp) if i not in gone]
            assert now[gone].abs().max() < 1e-6 if gone else True
            assert torch.equal(now[rest], old[rest])
    assert edit.info["n"] == 5 and edit.info["method"] == "zeroed_vectors"
    with pytest.raises(NotPossible, match="13 vectors were to be set to zero, of 12"):
        zeroed_edit(lm, vectors, 13)


def test_controls_have_the_norm_of_the_edit_in_every_layer(lm):
    saes = {layer: make_sae(lm, layer) for layer in (0, 1)}
    features = [Feature(0, 3), Feature(0, 7), Feature(1, 5)]
    edit = pisces_edit(lm, saes, features, 0.3, 2.0)
    controls = random_norm_edit(edit, 1), random_direction_edit(edit, 1)
    for control in (random_features_edit(lm, saes, features, edit, 1), *controls):
        assert control.changes.keys() == edit.changes.keys()
        for name, change in control.changes.items():
            assert float(change.dense().norm()) == pytest.approx(float(edit.changes[name].dense().norm()), rel=1e-4)
    drawn = random_features_edit(lm, saes, features, edit, 1).info["features"]
    assert not {tuple(f[:2]) for f in drawn} & {(f.layer, f.index) for f in features}
    span = saes[0].W_dec[[f[1] for f in drawn if f[0] == 0]]
    change = random_features_edit(lm, saes, features, edit, 1).changes[lm.down_proj_name(0)].dense()
    outside = torch.linalg.svd(span)[2][len(span) :]
    assert float((outside @ change).norm()) < 1e-4 * float(change.norm())  # it writes along its features alone
    used = {n: c.dense().abs().amax(0) > 0 for n, c in edit.changes.items()}
    other = other_features_edit(lm, saes, features, edit, 1)
    assert other.changes.keys() == edit.changes.keys()
    for name, change in other.changes.items():
        assert torch.equal(change.right, edit.changes[name].right) and not torch.equal(
            change.left, edit.changes[name].left
        )
    written = saes[0].W_dec[[f.index for f in random_features(saes, features, 1) if f.layer == 0]].T
    torch.testing.assert_close(other.changes[lm.down_proj_name(0)].left, written)
    for control, same in zip(controls, (False, True), strict=True):  # as many rows: others, or the same ones
        found = {n: c.dense().abs().amax(0) > 0 for n, c in control.changes.items()}
        assert all(int(found[n].sum()) == int(used[n].sum()) for n in used)
        assert all(torch.equal(found[n], used[n]) for n in used) is same


def test_permuted_neurons_keep_norms_counts_and_values(lm):
    saes = {layer: make_sae(lm, layer) for layer in (0, 1)}
    edit = pisces_edit(lm, saes, [Feature(0, 3), Feature(1, 5)], 0.6, 2.0)
    neurons = {layer: (torch.rand(50, lm.d_mlp, generator=torch.Generator().manual_seed(layer)),) for layer in (0, 1)}
    shared = SimpleNamespace(
        chosen=lambda name: SimpleNamespace(edit=edit), evidence=SimpleNamespace(own=1, neurons=neurons), seed=0
    )
    moved = fit_permuted_neurons(lm, load_concept("golf"), ControlConfig(), shared)
    for name, change in edit.changes.items():
        old, new = change.dense(), moved.changes[name].dense()
        assert isinstance(moved.changes[name], LowRank), "as small a file as the edit's"
        used = [set((x.abs().amax(0) > 0).nonzero()[:, 0].tolist()) for x in (old, new)]
        assert len(used[0]) == len(used[1]) and not used[0] & used[1]
        norms = [x.norm(dim=0).sort().values for x in (old, new)]
        torch.testing.assert_close(norms[0], norms[1])
    before = lm.fingerprint()
    with moved.applied(lm):
        assert lm.fingerprint() != before
    assert lm.fingerprint() == before
    everywhere = pisces_edit(lm, saes, [Feature(0, 3)], 0.0, 2.0)
    shared.chosen = lambda name: SimpleNamespace(edit=everywhere)
    with pytest.raises(NotPossible, match="more than half of a layer's neurons"):
        fit_permuted_neurons(lm, load_concept("golf"), ControlConfig(), shared)
