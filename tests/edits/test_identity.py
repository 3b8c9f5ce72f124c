"""An edit knows which weights it is for; nothing is exported while a change is on."""

import json

import pytest
import torch
from safetensors import safe_open

from conceptlab.attacks import Quantised, RelearnConfig, UndoConfig, erased_copies, relearn, teach, undo
from conceptlab.core import ConceptLabError
from conceptlab.edits import (
    Dense,
    WeightEdit,
    match_norms,
    random_like,
    random_norm_edit,
    trainable,
    trained_parameters,
    value_edit,
)
from conceptlab.erasure import Loss, NegativePreference, TuningConfig, finetune_texts
from conceptlab.models import Change, LanguageModel
from untouched import TEXTS, assert_untouched, weights

REFUSED = r"was made for tiny-llama with the weights .*load the model it was made for, or say applied\(lm, force=True\)"


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(lm, seed=0):
    return value_edit(lm, 0, [3, 5], normal(2, 16, seed=seed), {"method": "test"})


# ---- A8: other models, other states -------------------------------------------------------------------------
def test_another_model_of_the_same_name_and_shapes_is_refused(lm, tiny_llama):
    other, edit = tiny_llama(seed=1), made(lm)
    before = weights(other)
    with pytest.raises(ConceptLabError, match=REFUSED) as caught, edit.applied(other):
        pass
    assert "\n" not in str(caught.value)
    assert_untouched(other, before)
    with edit.applied(other, force=True):
        assert not torch.equal(weights(other)[lm.down_proj_name(0)], before[lm.down_proj_name(0)])
    assert_untouched(other, before)
    twin = tiny_llama()
    twin.name = "the same weights in a folder"
    with edit.applied(twin):  # no name enters
        pass


def test_another_state_and_another_dtype_are_refused(lm, tiny_llama):
    edit = made(lm)
    half = tiny_llama()
    half.hf.to(torch.bfloat16)
    with pytest.raises(ConceptLabError, match="dtype or state"), edit.applied(half):
        pass
    with edit.applied(half, force=True):
        pass
    with torch.no_grad():
        lm.parameters()[lm.down_proj_name(1)][0, 0] += 1e-3  # another weight than the edit changes
    with pytest.raises(ConceptLabError, match=REFUSED), edit.applied(lm):
        pass


@pytest.mark.parametrize("tied", [False, True])
def test_an_edit_is_refused_by_its_own_export(tiny_llama, tmp_path, tied):
    from transformers import AutoModelForCausalLM

    lm = tiny_llama(tie_word_embeddings=tied)
    edit = made(lm)
    edit.export(lm, tmp_path / "edited")
    hf = AutoModelForCausalLM.from_pretrained(tmp_path / "edited", dtype=torch.float32)
    exported = LanguageModel("tiny-llama", hf, lm.tokenizer, str(tmp_path / "edited"))
    with pytest.raises(ConceptLabError, match="or one that the edit is in already"), edit.applied(exported):
        pass
    with pytest.raises(ConceptLabError, match=REFUSED):
        edit.export(exported, tmp_path / "twice")
    assert not (tmp_path / "twice").exists()
    note = json.loads((tmp_path / "edited" / "edit.json").read_text(encoding="utf-8"))
    assert note["fingerprint"] == edit.fingerprint == lm.fingerprint()
    saved = tmp_path / "plain"
    lm.save(saved)
    hf = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32)
    with edit.applied(LanguageModel("elsewhere", hf, lm.tokenizer, str(saved))):
        pass


# ---- A7: nothing is exported while a change is on -------------------------------------------------------------
@pytest.mark.parametrize("kind", ["edit", "rounding", "hooks", "training", "untied"])
def test_export_and_save_are_refused_inside_a_block(tiny_llama, tmp_path, kind):
    lm = tiny_llama(tie_word_embeddings=True)
    edit = made(lm)
    block = {
        "edit": lambda: edit.applied(lm),
        "rounding": lambda: Quantised(edit, 4).applied(lm),
        "hooks": lambda: lm.intervene({("mlp_output", 0): lambda x: x}),
        "training": lambda: trainable(lm, trained_parameters(lm)),
        "untied": lambda: Change(lm, "untied embeddings", lm.untie),
    }[kind]
    with block():
        with pytest.raises(ConceptLabError, match="cannot be exported while changes are on it .* in it twice"):
            edit.export(lm, tmp_path / "model")
        with pytest.raises(ConceptLabError, match="cannot be saved while changes are on it"):
            lm.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


# ---- files --------------------------------------------------------------------------------------------------
def test_the_fingerprint_is_saved_and_files_without_one_go_by_name_and_shapes(lm, tiny_llama, tmp_path):
    edit, other = made(lm), tiny_llama(seed=1)
    edit.save(tmp_path / "new.safetensors")
    new = WeightEdit.load(tmp_path / "new.safetensors")
    assert new.fingerprint == edit.fingerprint == lm.fingerprint()
    with pytest.raises(ConceptLabError, match=REFUSED), new.applied(other):
        pass
    old = WeightEdit("tiny-llama", edit.changes, {"i": 1})  # as files were before there were fingerprints
    old.save(tmp_path / "old.safetensors")
    with safe_open(tmp_path / "old.safetensors", "pt") as file:
        assert file.metadata().keys() == {"model", "info"}
    old = WeightEdit.load(tmp_path / "old.safetensors")
    assert old.fingerprint is None
    with old.applied(lm), pytest.raises(ConceptLabError, match="made for tiny-llama and this is gemma"):
        other.name = "gemma"
        old.applied(other).__enter__()
    with old.applied(other, force=True):
        pass


# ---- composition: the weights at the bottom of the stack ------------------------------------------------------
def test_edits_nest_in_any_order_and_an_edit_made_inside_another_is_one_of_the_base(lm):
    base = lm.fingerprint()
    a = made(lm)
    with a.applied(lm):
        b = made(lm, seed=1)
        with b.applied(lm), a.applied(lm):
            c = made(lm, seed=2)
    for edit in (a, b, c, a + b, a * 0.5, match_norms(a, b), random_like(a), random_norm_edit(b)):
        assert edit.fingerprint == base
        with edit.applied(lm):
            assert lm.changes.base() == base != lm.fingerprint()
    with lm.intervene({("mlp_output", 0): lambda x: x}), a.applied(lm):
        pass


def test_the_nests_of_the_library_keep_working(lm):
    before, base = weights(lm), lm.fingerprint()
    cfg = RelearnConfig(steps=2, batch_size=1, n_ctx=16, lr=1e-3)
    edit = made(lm)
    relearn(lm, edit, TEXTS, cfg, evaluate=lambda m: m.changes.base())
    undo(lm, edit, lambda m: 0, UndoConfig(directions=(1,)))
    taught = teach(lm, TEXTS, cfg)
    both, alone = erased_copies(lm, taught, lambda m: made(m, seed=2))
    npo, short = Loss(NegativePreference()), TuningConfig(steps=1, batch_size=1, n_ctx=16)
    eraser = finetune_texts(lm, npo, TEXTS[:1], TEXTS[1:], short)
    with taught.applied(lm):
        on_top = finetune_texts(lm, npo, TEXTS[:1], [], short)
    for found in (taught, both, alone, eraser, on_top, taught + on_top):
        assert found.fingerprint == base
        with found.applied(lm), Quantised(found, 4).applied(lm):
            pass
    assert_untouched(lm, before)


def test_between_is_for_the_weights_that_it_leads_from(lm):
    base, name = lm.fingerprint(), lm.down_proj_name(1)
    before = {name: lm.parameters()[name].detach().clone()}
    with torch.no_grad():
        lm.parameters()[name].add_(0.25)
    edit = WeightEdit.between(lm, before)
    assert edit.fingerprint == base != lm.fingerprint()
    with pytest.raises(ConceptLabError, match=REFUSED), edit.applied(lm):  # it is in it already
        pass
    with torch.no_grad():
        lm.parameters()[name].copy_(before[name])
    with edit.applied(lm):
        pass


def test_edits_of_different_weights_do_not_add_up(lm, tiny_llama):
    with pytest.raises(ConceptLabError, match=r"cannot be added to an edit of tiny-llama \(weights"):
        made(lm) + made(tiny_llama(seed=1))
    by_hand = WeightEdit(lm.name, {lm.down_proj_name(0): Dense(normal(16, 32))})
    assert (made(lm) + by_hand).fingerprint == (by_hand + made(lm)).fingerprint == lm.fingerprint()
