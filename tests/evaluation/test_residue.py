"""What is left of value vectors and of a direction's energy, on edits whose answer is known."""

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.edits import LowRank, WeightEdit, value_edit
from conceptlab.evaluation import residue, trace, write_energy


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.5)


PLACES = [(0, 3, 1), (1, 7, -1)]


def after(lm, edit, k=20):
    with edit.applied(lm):
        return trace(lm, PLACES, k)


def test_residue_of_known_edits(lm):
    before = trace(lm, PLACES, 20)
    same = residue(before, trace(lm, PLACES, 20))
    assert (same.jaccard.value, same.cosine.value, same.l2.value) == (1, pytest.approx(1), 0)
    values = [lm.value_vectors(layer)[neuron][None] for layer, neuron, _ in PLACES]
    gone = value_edit(lm, 0, [3], -values[0]) + value_edit(lm, 1, [7], -values[1])
    found = residue(before, after(lm, gone))
    assert found.jaccard.value == 0 and abs(found.cosine.value) < 1e-6
    assert found.l2.value == pytest.approx(float(torch.cat(values).norm(dim=1).mean()), rel=1e-5)
    half = residue(before, after(lm, gone * 0.5))
    assert half.jaccard.value == 1 and half.cosine.value == pytest.approx(1) and half.l2.n == 2
    turned = residue(before, after(lm, gone * 2.0))
    assert turned.jaccard.value == 0 and turned.cosine.value == pytest.approx(-1)
    with pytest.raises(ConceptLabError, match="at least one place"):
        trace(lm, [])


def test_the_sign_says_which_end_is_read(lm):
    plus, minus = trace(lm, [(0, 3, 1)], 5), trace(lm, [(0, 3, -1)], 5)
    assert torch.equal(plus.values, -minus.values) and not plus.top[0] & minus.top[0]


def test_energy_against_a_loop_and_after_ablation(lm):
    d = torch.nn.functional.normalize(torch.randn(2, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    sigma = torch.tensor([1.0, -1.0]).repeat(16)
    rows = lm.down_proj(1).clone()
    want = [sum(max(0.0, float(s * (w @ v))) ** 2 for s, w in zip(sigma, rows, strict=True)) for v in d]
    before = write_energy(lm, 1, d, sigma)
    assert before.tolist() == pytest.approx(want, rel=1e-5)
    cut = WeightEdit(lm.name, {lm.down_proj_name(1): LowRank(-d[:1].T.contiguous(), (rows @ d[:1].T).T.contiguous())})
    with cut.applied(lm):
        assert float(write_energy(lm, 1, d, sigma)[0]) < 1e-10 * float(before[0])
    with (cut * 2.0).applied(lm):  # turned round: what wrote +d writes -d
        assert float(write_energy(lm, 1, -d[:1], sigma)[0]) == pytest.approx(float(before[0]), rel=1e-4)
