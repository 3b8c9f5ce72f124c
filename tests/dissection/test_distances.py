"""The four distances against formulas written out, and shares whose value is known."""

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.dissection import Distances, distances, share_taken_back

LENGTHS = (2, 1)


def logits(seed):
    return torch.randn(3, 7, generator=torch.Generator().manual_seed(seed))


def test_distances_are_what_their_formulas_say():
    z, z0, targets = logits(0), logits(1), torch.tensor([1, 2, 3])
    found = distances(z, z0, targets, LENGTHS)
    p0 = z0.softmax(-1)
    kl = [sum(float(p0[t, v] * (p0[t, v].log() - z[t].softmax(-1)[v].log())) for v in range(7)) for t in range(3)]
    assert found.kl.tolist() == pytest.approx([(kl[0] + kl[1]) / 2, kl[2]], abs=1e-5)
    mse = [sum(float(z[t, v] - z0[t, v]) ** 2 for v in range(7)) / 7 for t in range(3)]
    assert found.mse.tolist() == pytest.approx([(mse[0] + mse[1]) / 2, mse[2]], abs=1e-5)
    gold = z.log_softmax(-1)[torch.arange(3), targets]
    assert found.gold.tolist() == pytest.approx([float(gold[:2].mean()), float(gold[2])], abs=1e-5)


def test_a_shift_of_all_logits_counts_in_the_raw_distance_alone():
    z0, targets = logits(1), torch.tensor([1, 2, 3])
    found = distances(z0 + 3.0, z0, targets, LENGTHS)
    assert found.mse.tolist() == pytest.approx([9.0, 9.0], rel=1e-5)
    for name in ("centred", "kl"):
        assert getattr(found, name).tolist() == pytest.approx([0.0, 0.0], abs=1e-5)
    assert torch.allclose(found.gold, distances(z0, z0, targets, LENGTHS).gold, atol=1e-5)


def test_logits_of_other_positions_are_refused():
    with pytest.raises(ConceptLabError, match="same 4 answer tokens"):
        distances(logits(0), logits(1), torch.tensor([1, 2, 3]), (2, 2))


def at(level, n=8):
    spread = 1 + 0.1 * torch.arange(n)
    return Distances(level * spread, level * spread, level * spread, -level * spread)


def test_shares_of_known_value():
    whole, lost = at(0.0), at(4.0)
    for measure in ("mse", "centred", "kl", "gold"):
        assert share_taken_back(whole, lost, at(1.0), measure).value == pytest.approx(0.75)
        assert share_taken_back(whole, lost, at(6.0), measure).value == pytest.approx(-0.5)
        assert share_taken_back(whole, lost, lost, measure).value == 0.0
        assert share_taken_back(whole, lost, whole, measure).value == 1.0
    other = (whole, lost, at(3.0))
    assert share_taken_back(whole, lost, at(1.0), "kl", minus=other).value == pytest.approx(0.5)


def test_nothing_lost_has_no_share():
    assert not share_taken_back(at(1.0), at(1.0), at(1.0), "gold").measurable
    with pytest.raises(ConceptLabError, match="Unknown measure"):
        share_taken_back(at(0.0), at(1.0), at(1.0), "logit")
