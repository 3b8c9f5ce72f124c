"""The fingerprint tells weights apart by their bits, and by nothing else."""

import torch

from conceptlab.edits import Dense, WeightEdit
from conceptlab.models import fingerprint


def test_every_bit_counts_and_names_do_not(tiny_llama):
    lm, same = tiny_llama(), tiny_llama()
    same.name = "another name"
    print_before = lm.fingerprint()
    assert print_before == same.fingerprint() != tiny_llama(seed=1).fingerprint()
    weight = lm.parameters()[lm.down_proj_name(1)]
    with torch.no_grad():
        weight[3, 5] += 2**-20 * weight[3, 5].abs()  # far below what a sum of the numbers would show
    assert lm.fingerprint() != print_before


def test_it_changes_under_an_edit_and_comes_back(tiny_llama):
    lm = tiny_llama()
    before = lm.fingerprint()
    delta = torch.zeros(lm.d_model, lm.d_mlp)
    delta[0, 0] = 1e-3
    with WeightEdit(lm.name, {lm.down_proj_name(0): Dense(delta)}).applied(lm):
        assert lm.fingerprint() != before
    assert lm.fingerprint() == before


def test_a_permutation_changes_it():
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    assert fingerprint({"w": x}) != fingerprint({"w": x.flip(0)}) != fingerprint({"v": x})


def test_an_untied_unembedding_counts(tiny_llama):
    lm = tiny_llama(tie_word_embeddings=True)
    before = lm.fingerprint()
    with lm.untied():
        with torch.no_grad():
            lm.unembedding_rows()[7] += 1
        assert lm.fingerprint() != before
    assert lm.fingerprint() == before


def test_the_second_call_reads_no_weight(tiny_llama, monkeypatch):
    lm = tiny_llama()
    before = lm.fingerprint()
    monkeypatch.setattr("conceptlab.models.language_model.fingerprint", lambda weights: "read again")
    assert lm.fingerprint() == before
    with torch.no_grad():
        lm.parameters()[lm.down_proj_name(0)][0, 0] += 1
    assert lm.fingerprint() == "read again"
