"""WeightEdit: apply, revert bit-exactly, save, load, compose, report."""

import pytest
import torch
from safetensors.torch import save_file

from conceptlab.cache import ConceptLabError
from conceptlab.edits import Dense, LowRank, WeightEdit, random_like, value_edit


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama()


def weights(lm):
    return {name: p.detach().clone() for name, p in lm.hf.named_parameters()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_applied_adds_and_reverts_bit_exactly(lm):
    before = weights(lm)
    name = lm.down_proj_name(1)
    edit = WeightEdit(lm.name, {name: Dense(normal(16, 32)), "model.norm.weight": Dense(normal(16))})
    for stop in (None, ValueError, KeyboardInterrupt):
        try:
            with edit.applied(lm) as inside:
                assert inside is lm
                assert torch.equal(weights(lm)[name], before[name] + edit.changes[name].delta)
                if stop:
                    raise stop
        except (ValueError, KeyboardInterrupt) as error:
            assert type(error) is stop
        assert same(weights(lm), before)


def test_nested_edits_revert_in_turn(lm):
    before = weights(lm)
    a = value_edit(lm, 0, [1], normal(1, 16))
    b = value_edit(lm, 0, [2], normal(1, 16, seed=1))
    with a.applied(lm):
        middle = weights(lm)
        with b.applied(lm):
            both = weights(lm)
        assert same(weights(lm), middle)
    assert same(weights(lm), before)
    with (a + b).applied(lm):
        assert all(torch.allclose(weights(lm)[n], both[n], atol=1e-7) for n in both)


def test_value_edit_changes_those_value_vectors_alone(lm):
    before, delta = lm.value_vectors(1).clone(), normal(2, 16)
    with value_edit(lm, 1, [31, 0], delta, {"why": "test"}).applied(lm):
        after = lm.value_vectors(1)
        assert torch.allclose(after[[31, 0]], before[[31, 0]] + delta, atol=1e-6)
        assert torch.equal(after[1:31], before[1:31])


def test_compose_low_rank_and_dense(lm):
    name = lm.down_proj_name(0)
    low = WeightEdit(lm.name, {name: LowRank(normal(16, 2), normal(2, 32))}, {"i": 1})
    dense = WeightEdit(lm.name, {name: Dense(normal(16, 32, seed=3))}, {"i": 2})
    assert isinstance((low + low).changes[name], LowRank)
    torch.testing.assert_close((low + low).changes[name].dense(), 2 * low.changes[name].dense())
    total = low + dense
    torch.testing.assert_close(total.changes[name].dense(), low.changes[name].dense() + dense.changes[name].delta)
    assert total.info == {"parts": [{"i": 1}, {"i": 2}]}
    for edit in (low, dense):
        torch.testing.assert_close((edit * -0.5).changes[name].dense(), -0.5 * edit.changes[name].dense())
    with pytest.raises(ConceptLabError, match="An edit of tiny-llama cannot be added to an edit of other"):
        low + WeightEdit("other", {})


def test_save_and_load(lm, tmp_path):
    edit = value_edit(lm, 0, [3], normal(1, 16), {"tau": 2.5, "words": ["a", "é"]})
    edit = edit + WeightEdit(lm.name, {"model.norm.weight": Dense(normal(16))})
    edit.save(tmp_path / "sub" / "edit.safetensors")
    found = WeightEdit.load(tmp_path / "sub" / "edit.safetensors")
    assert (found.model, found.info) == (edit.model, edit.info)
    assert found.changes.keys() == edit.changes.keys()
    for name, change in edit.changes.items():
        assert type(found.changes[name]) is type(change)
        assert torch.equal(found.changes[name].dense(), change.dense())
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["edit.safetensors"]


def test_between_is_the_change_that_was_made(lm):
    name, before = lm.down_proj_name(1), weights(lm)
    lm.hf.get_parameter(name).add_(0.25)
    after = weights(lm)
    edit = WeightEdit.between(lm, {name: before[name]}, {"by": "hand"})
    lm.hf.get_parameter(name).copy_(before[name])
    with edit.applied(lm):
        assert torch.allclose(weights(lm)[name], after[name], atol=1e-7)
    assert same(weights(lm), before)


def test_report_counts_by_hand(lm):
    name = lm.down_proj_name(0)
    delta = torch.zeros(16, 32)
    delta[:, 4], delta[0, 5] = 1.0, 3.0  # norm: sqrt(16 + 9) = 5
    edit = WeightEdit(lm.name, {name: Dense(delta)})
    report = edit.report(lm)
    assert report["n_weights"] == 1 and report["vectors_touched"] == 2 / 32 and report["norm"] == 5
    assert report["relative_norm"] == pytest.approx(5 / float(weights(lm)[name].norm()))
    gain = WeightEdit(lm.name, {"model.norm.weight": Dense(torch.ones(16))})  # a vector holds no value vectors
    assert (edit + gain).report(lm)["vectors_touched"] == 2 / 32
    assert gain.report(lm) == {"n_weights": 1, "vectors_touched": 0.0, "norm": 4.0, "relative_norm": 1.0}
    assert WeightEdit(lm.name, {}).report(lm)["norm"] == 0


def test_random_like_has_the_same_norms_and_columns(lm):
    edit = value_edit(lm, 0, [3, 7], normal(2, 16)) + value_edit(lm, 1, [0], 10 * normal(1, 16))
    control = random_like(edit, seed=1)
    for name, change in edit.changes.items():
        theirs, ours = control.changes[name].dense(), change.dense()
        assert float(theirs.norm()) == pytest.approx(float(ours.norm()), rel=1e-5)
        assert torch.equal(theirs.any(0), ours.any(0))
        assert abs(float(torch.cosine_similarity(theirs.flatten(), ours.flatten(), dim=0))) < 0.7
    again, other = random_like(edit, seed=1), random_like(edit, seed=2)
    name = lm.down_proj_name(0)
    assert torch.equal(again.changes[name].dense(), control.changes[name].dense())
    assert not torch.equal(other.changes[name].dense(), control.changes[name].dense())


def test_an_edit_of_another_model(lm, tiny_llama):
    edit = value_edit(tiny_llama(d_model=8), 0, [0], torch.ones(1, 8))
    before = weights(lm)
    for use in (lambda: edit.report(lm), lambda: edit.applied(lm).__enter__()):
        with pytest.raises(ConceptLabError, match=r"changes .*down_proj.weight \[8, 16\], which tiny-llama does not"):
            use()
    deeper = value_edit(tiny_llama(n_layers=3), 2, [0], torch.ones(1, 16))
    with pytest.raises(ConceptLabError, match="load the model it was made for"), deeper.applied(lm):
        pass
    assert same(weights(lm), before)


def test_value_edit_of_a_neuron_that_does_not_exist(lm):
    with pytest.raises(ConceptLabError, match="neurons 0 to 31; neuron 32 does not exist"):
        value_edit(lm, 0, [32], torch.ones(1, 16))


def test_a_file_that_is_not_an_edit(tmp_path):
    with pytest.raises(ConceptLabError, match="There is no file .*; give the path that WeightEdit.save wrote"):
        WeightEdit.load(tmp_path / "none.safetensors")
    (tmp_path / "corrupt.safetensors").write_bytes(b"not safetensors")
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    save_file({"weight|what": torch.ones(2)}, tmp_path / "parts.safetensors", {"model": "m", "info": "{}"})
    for name in ("corrupt", "other", "parts"):
        with pytest.raises(ConceptLabError, match=f"{name}.safetensors is not a saved WeightEdit"):
            WeightEdit.load(tmp_path / f"{name}.safetensors")
