"""Permuted neurons: the same values at other neurons of equal activity."""

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.edits import INPUT, Dense, Rows, WeightEdit, permuted_neurons, value_edit


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def activity(seed=0):
    return {layer: normal(32, seed=seed + layer).abs() for layer in (0, 1)}


def used(change):
    return (change.dense().abs().amax(0) > 0).nonzero()[:, 0].tolist()


def test_same_values_and_norms_at_other_neurons(lm):
    edit = value_edit(lm, 0, [3, 7, 8, 30], normal(4, 16), {"method": "m"}) + value_edit(lm, 1, [0], normal(1, 16))
    for seed in range(5):
        control = permuted_neurons(lm, edit, activity(), seed)
        assert control.fingerprint == edit.fingerprint and control.info["control"] == "permuted neurons"
        for layer in (0, 1):
            ours, theirs = (e.changes[lm.down_proj_name(layer)] for e in (control, edit))
            edited, others = control.info["moves"][str(layer)]
            assert edited == used(theirs) and sorted(others) == used(ours)
            assert not set(edited) & set(others) and len(set(others)) == len(edited)
            assert torch.equal(ours.dense()[:, others], theirs.dense()[:, edited])
            assert float(ours.dense().norm()) == pytest.approx(float(theirs.dense().norm()), rel=1e-6)


def test_the_nearest_ranks_are_taken_by_hand(lm):
    """Activity = neuron number. 10 takes 9 or 11; 0 has nothing below it and takes 1; 20 and 21 take 19 and 22."""
    rising = {0: torch.arange(32.0)}
    for seed in range(6):
        moves = permuted_neurons(lm, value_edit(lm, 0, [0, 10, 20, 21], normal(4, 16)), rising, seed).info["moves"]["0"]
        taken = dict(zip(*moves, strict=True))
        assert taken[0] == 1 and taken[10] in (9, 11) and taken[20] == 19 and taken[21] == 22
    found = {permuted_neurons(lm, value_edit(lm, 0, [10], normal(1, 16)), rising, s).info["moves"]["0"][1][0]
             for s in range(12)}  # fmt: skip
    assert found == {9, 11}


def test_activity_agrees_where_neurons_are_many(lm):
    edit = value_edit(lm, 0, [3, 7, 12], normal(3, 16))
    sizes = activity()[0]
    rank = sizes.argsort().argsort()
    edited, others = permuted_neurons(lm, edit, {0: sizes}).info["moves"]["0"]
    assert all(abs(int(rank[a]) - int(rank[b])) <= 3 for a, b in zip(edited, others, strict=True))


def test_a_seed_decides(lm):
    edit = value_edit(lm, 0, list(range(0, 32, 3)), normal(11, 16))
    a, b, c = (permuted_neurons(lm, edit, activity(), seed).info["moves"] for seed in (0, 0, 1))
    assert a == b != c


def test_it_refuses_what_has_no_neurons_to_move(lm):
    name = lm.down_proj_name(0)
    rows = Rows(torch.tensor([5]), normal(1, 16), torch.tensor(lm.d_vocab))
    edit = value_edit(lm, 0, [3], normal(1, 16))
    cases = [
        (WeightEdit.of(lm, {lm.embedding_name() + INPUT: rows}), activity(), "edits of down projections"),
        (WeightEdit.of(lm, {"model.norm.weight": Dense(torch.ones(16))}), activity(), "edits of down projections"),
        (edit, {1: torch.ones(32)}, "Layer 0 is edited; give the activity of its 32 neurons"),
        (edit, {0: torch.ones(31)}, "Layer 0 is edited; give the activity of its 32 neurons"),
        (edit, {0: torch.full((32,), float("nan"))}, "NaN or infinite"),
        (WeightEdit.of(lm, {name: Dense(torch.ones(16, 32))}), activity(), "32 of 32 neurons of layer 0 are edited"),
    ]
    for wrong, sizes, message in cases:
        with pytest.raises(ConceptLabError, match=message):
            permuted_neurons(lm, wrong, sizes)
    half = value_edit(lm, 0, list(range(16)), normal(16, 16))
    assert sorted(permuted_neurons(lm, half, activity()).info["moves"]["0"][1]) == list(range(16, 32))
