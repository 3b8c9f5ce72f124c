"""The fingerprint tells weights apart by their bits, and by nothing else."""

import pytest
import torch

from conceptlab.edits import Dense, WeightEdit
from conceptlab.models import Change, fingerprint


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


@pytest.mark.parametrize("shape", [(64, 8), (576, 1536), (300, 127), (301, 211), (70_000,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_permutation_changes_it(shape, dtype):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = fingerprint({"w": x})
    assert before == fingerprint({"w": x.clone()}) != fingerprint({"v": x})
    for dim in range(x.dim()):
        for i, j in ((0, 1), (3, 4), (1, 60), (5, 7)):
            order = torch.arange(x.shape[dim])
            order[[i, j % len(order)]] = order[[j % len(order), i]]
            assert fingerprint({"w": x.index_select(dim, order)}) != before, (dim, i, j)


def test_an_edit_and_the_same_edit_with_its_neurons_permuted(tiny_llama):
    """The control of an edit moves the same values to other neurons: a sum over the weight does not see that."""
    lm = tiny_llama(d_model=128)
    delta = torch.zeros(lm.d_model, lm.d_mlp)
    delta[:, 10:14] = torch.randn(lm.d_model, 4, generator=torch.Generator().manual_seed(0))
    found = set()
    lm.parameters()[lm.down_proj_name(0)].zero_()
    for order in ([10, 11, 12, 13], [11, 10, 12, 13], [13, 11, 12, 10], [20, 21, 22, 23]):
        moved = torch.zeros_like(delta)
        moved[:, order] = delta[:, 10:14]
        with WeightEdit(lm.name, {lm.down_proj_name(0): Dense(moved)}).applied(lm):
            found.add(lm.fingerprint())
    assert len(found) == 4


def test_another_copy_of_the_unembedding_at_the_same_address(tiny_llama):
    """Torch gives the memory of a tensor that is gone to the next one, and counts its versions from 0 again."""
    lm = tiny_llama(tie_word_embeddings=True)
    found = []
    for row in range(5):
        with Change(lm, "untied embeddings", lm.untie):
            with torch.no_grad():
                lm.unembedding_rows()[row] += 1
            found.append(lm.fingerprint())
    assert len(set(found)) == 5


def test_an_untied_unembedding_counts(tiny_llama):
    lm = tiny_llama(tie_word_embeddings=True)
    before = lm.fingerprint()
    with Change(lm, "untied embeddings", lm.untie):
        with torch.no_grad():
            lm.unembedding_rows()[7] += 1
        assert lm.fingerprint() != before
    assert lm.fingerprint() == before


def test_the_second_call_reads_no_weight(tiny_llama, monkeypatch):
    lm = tiny_llama()
    before = lm.fingerprint()
    monkeypatch.setattr("conceptlab.models.identity.fingerprint", lambda weights: "read again")
    assert lm.fingerprint() == before
    with torch.no_grad():
        lm.parameters()[lm.down_proj_name(0)][0, 0] += 1
    assert lm.fingerprint() == "read again"
