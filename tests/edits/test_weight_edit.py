"""WeightEdit: apply, revert bit-exactly, save, load, compose, report."""

import pytest
import torch
from safetensors.torch import save_file

from conceptlab.core import ConceptLabError
from conceptlab.edits import INPUT, Dense, LowRank, Rows, WeightEdit, match_norms, random_like, value_edit


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
    assert report["n_weights"] == 1 and report["vectors_touched"] == 2 / 32
    assert report["norm"] == pytest.approx(5, rel=1e-6)
    assert report["relative_norm"] == pytest.approx(5 / float(weights(lm)[name].norm()))
    gain = WeightEdit(lm.name, {"model.norm.weight": Dense(torch.ones(16))})  # a vector holds no value vectors
    assert (edit + gain).report(lm)["vectors_touched"] == 2 / 32
    assert gain.report(lm) == {  # gains are 1, so that adding 1 is exact
        "n_weights": 1,
        "vectors_touched": 0.0,
        "rows_touched": 0.0,
        "norm": 4.0,
        "relative_norm": 1.0,
    }
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
    for use in (lambda: edit.report(lm), lambda: edit.applied(lm, force=True).__enter__()):
        with pytest.raises(ConceptLabError, match=r"changes .*down_proj.weight \[8, 16\], which tiny-llama does not"):
            use()
    deeper = value_edit(tiny_llama(n_layers=3), 2, [0], torch.ones(1, 16))
    for force in (False, True):
        with pytest.raises(ConceptLabError, match="load the model it was made for"), deeper.applied(lm, force):
            pass
    assert same(weights(lm), before) and not len(lm.changes)


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


# ---- rows of the embedding ---------------------------------------------------------------------------------
def rows_edit(lm, side="", index=(5, 9, 5), seed=2):
    n = torch.tensor(len(lm.hf.get_input_embeddings().weight))
    change = Rows(torch.tensor(index), normal(len(index), lm.d_model, seed=seed), n)
    return WeightEdit(lm.name, {lm.embedding_name() + side: change}, {"rows": list(index)})


def test_rows_add_up_and_save(lm, tmp_path):
    edit = rows_edit(lm)
    name, change = lm.embedding_name(), edit.changes[lm.embedding_name()]
    before = weights(lm)
    with edit.applied(lm):
        moved = weights(lm)[name] - before[name]
        torch.testing.assert_close(moved[5], change.delta[0] + change.delta[2], atol=1e-5, rtol=0)
        torch.testing.assert_close(moved, change.dense(), atol=1e-5, rtol=0)
    assert same(weights(lm), before)
    assert edit.report(lm)["rows_touched"] == 2 and edit.report(lm)["vectors_touched"] == 0
    torch.testing.assert_close((edit + edit * 0.5).changes[name].dense(), 1.5 * change.dense())
    edit.save(tmp_path / "rows.safetensors")
    loaded = WeightEdit.load(tmp_path / "rows.safetensors")
    assert isinstance(loaded.changes[name], Rows) and loaded.info == edit.info
    assert torch.equal(loaded.changes[name].dense(), change.dense())
    control = random_like(edit).changes[name]
    assert sorted(control.index.tolist()) == [5, 9]
    assert float(control.delta.norm()) == pytest.approx(float(change.dense().norm()), rel=1e-5)


@pytest.mark.parametrize("side", ["", INPUT])
def test_a_shared_embedding_is_untied_only_where_asked(tiny_llama, side):
    lm = tiny_llama(tie_word_embeddings=True)
    embedding, head = lm.hf.get_input_embeddings(), lm.hf.get_output_embeddings()
    assert head.weight is embedding.weight
    shared, before = head.weight, head.weight.detach().clone()
    edit = rows_edit(lm, side)
    with pytest.raises(KeyError), edit.applied(lm):
        assert torch.equal(embedding.weight[5], before[5]) is False
        assert torch.equal(head.weight, before) is (side == INPUT)
        assert torch.equal(lm.unembedding_rows(), before) is (side == INPUT)
        raise KeyError
    assert head.weight is embedding.weight is shared and torch.equal(shared, before)
    assert lm.hf.config.tie_word_embeddings


def test_an_input_edit_on_top_of_one_of_both_sides(tiny_llama):
    lm = tiny_llama(tie_word_embeddings=True)
    before = lm.unembedding_rows().clone()
    both, alone = rows_edit(lm), rows_edit(lm, INPUT, index=(7,))
    with (alone + both).applied(lm):
        embedding, head = lm.hf.get_input_embeddings().weight, lm.unembedding_rows()
        assert torch.equal(head[5], embedding[5]) and not torch.equal(head[5], before[5])
        assert torch.equal(head[7], before[7]) and not torch.equal(embedding[7], before[7])
    assert torch.equal(lm.unembedding_rows(), before)


def test_where_nothing_is_shared_the_input_is_the_embedding(lm):
    assert lm.hf.get_output_embeddings().weight is not lm.hf.get_input_embeddings().weight
    head = lm.unembedding_rows().clone()
    with rows_edit(lm, INPUT).applied(lm):
        one = weights(lm)
    with rows_edit(lm).applied(lm):
        assert same(one, weights(lm)) and torch.equal(lm.unembedding_rows(), head)
    wrong = WeightEdit(lm.name, {lm.down_proj_name(0) + INPUT: Dense(torch.zeros(16, 32))})
    with pytest.raises(ConceptLabError, match="Only the embedding can be changed on its input side"), wrong.applied(lm):
        pass


# ---- controls and export -----------------------------------------------------------------------------------
def test_norms_are_matched_weight_by_weight(lm):
    edit = value_edit(lm, 0, [3], normal(1, 16)) + value_edit(lm, 1, [0], normal(1, 16))
    like = value_edit(lm, 0, [5], 7 * normal(1, 16)) + value_edit(lm, 1, [1], 0.1 * normal(1, 16))
    matched = match_norms(edit, like)
    for name, change in matched.changes.items():
        assert float(change.dense().norm()) == pytest.approx(float(like.changes[name].dense().norm()), rel=1e-5)
        ours, theirs = change.dense().flatten(), edit.changes[name].dense().flatten()
        assert float(torch.cosine_similarity(ours, theirs, dim=0)) == pytest.approx(1)
    with pytest.raises(ConceptLabError, match="of the same weights"):
        match_norms(edit, value_edit(lm, 0, [3], normal(1, 16)))


@pytest.mark.parametrize("tied", [False, True])
def test_an_exported_model_loads_in_plain_transformers(tiny_llama, tmp_path, tied):
    import json

    from transformers import AutoModelForCausalLM, AutoTokenizer

    lm = tiny_llama(tie_word_embeddings=tied)
    edit = value_edit(lm, 1, [3], normal(1, 16), {"why": "test"}) + rows_edit(lm, INPUT)
    before, folder = weights(lm), tmp_path / "edited"
    edit.export(lm, folder)
    assert same(weights(lm), before)
    ids = torch.tensor([[5, 9, 11, 200]])
    other = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with edit.applied(lm), torch.no_grad():
        assert torch.equal(other(ids).logits, lm.logits(ids))
    assert not torch.equal(other(ids).logits, lm.logits(ids))
    assert AutoTokenizer.from_pretrained(folder)("a cat").input_ids == lm.tokenizer("a cat").input_ids
    assert json.loads((folder / "edit.json").read_text())["info"]["parts"][0] == {"why": "test"}
    edit.export(lm, folder)  # an earlier export may be replaced, nothing else
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConceptLabError, match="is there already and no exported edit"):
        edit.export(lm, tmp_path / "mine")
