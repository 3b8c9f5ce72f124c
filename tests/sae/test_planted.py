"""Planted worlds: the truth is what it says it is, and the recovery scores count what they should."""

from itertools import permutations

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.sae.planted import PlantedConfig, cosines, max_cosines, plant, recovered


def rows(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_tokens_are_sums_of_the_directions_that_occur():
    world = plant(PlantedConfig(d_in=5, n_features=9, active=2.0), 40)
    for token in range(40):
        by_hand = sum(float(f) * world.directions[i] for i, f in enumerate(world.features[token]))
        assert torch.allclose(world.x[token], by_hand if torch.is_tensor(by_hand) else torch.zeros(5), atol=1e-5)
    assert torch.allclose(world.directions.norm(dim=1), torch.ones(9))
    strengths = world.features[world.features > 0]
    assert 0.5 <= float(strengths.min()) and float(strengths.max()) <= 1.5


def test_frequencies_are_those_promised():
    cfg = PlantedConfig(n_features=50, active=3.0, zipf=1.0)
    world = plant(cfg, 40_000)
    assert float(world.frequencies.sum()) == pytest.approx(3)
    assert float(world.frequencies[0] / world.frequencies[9]) == pytest.approx(10, rel=1e-4)
    seen = (world.features > 0).float().mean(0)
    spread = (world.frequencies * (1 - world.frequencies) / 40_000).sqrt()
    assert float(((seen - world.frequencies) / spread).abs().max()) < 4.5


def test_children_only_occur_with_their_parent():
    cfg = PlantedConfig(n_features=20, active=3.0, children=5, child_share=0.4)
    world = plant(cfg, 20_000)
    on = world.features > 0
    assert not bool((on[:, 15:] & ~on[:, :5]).any())
    share = (on[:, 15:].sum(0) / on[:, :5].sum(0)).mean()
    assert float(share) == pytest.approx(0.4, abs=0.03)


def test_seeds_choose_tokens_and_world_apart():
    cfg = PlantedConfig(noise=0.1)
    a, again, other = plant(cfg, 100), plant(cfg, 100), plant(cfg, 100, seed=2)
    assert torch.equal(a.x, again.x) and torch.equal(a.directions, other.directions)
    assert not torch.equal(a.x, other.x)
    assert not torch.equal(a.directions, plant(PlantedConfig(seed=1), 100).directions)


def test_a_fresh_dictionary_of_the_same_seed_does_not_hold_the_truth():
    from conceptlab.sae import SAEConfig, TopKSAE

    for seed in range(3):
        world = plant(PlantedConfig(seed=seed), 1)
        sae = TopKSAE(SAEConfig("topk", 32, 256, 4, "planted", 0, "planted"), seed)
        assert not bool(recovered(world.directions, sae.W_dec.detach()).any())


def test_worlds_that_cannot_be():
    with pytest.raises(ConceptLabError, match="need as many parents"):
        plant(PlantedConfig(n_features=10, children=6), 5)
    with pytest.raises(ConceptLabError, match="more than always"):
        plant(PlantedConfig(n_features=10, active=9.0, zipf=1.0), 5)


def test_cosines_against_a_loop():
    a, b = rows(4, 6), rows(7, 6, seed=1)
    b[3] = 0
    found = cosines(a, b)
    for i in range(4):
        for j in range(7):
            want = 0.0 if j == 3 else float(a[i] @ b[j] / a[i].norm() / b[j].norm())
            assert float(found[i, j]) == pytest.approx(want, abs=1e-6)
    assert torch.equal(max_cosines(a, b), found.max(1).values)


def test_recovery_is_one_to_one():
    truth = torch.eye(3)
    assert recovered(truth, truth.flip(0) * 5).all()
    assert recovered(truth, -truth).sum() == 0, "the sign counts"
    assert recovered(truth, truth[:1].expand(4, 3)).tolist() == [True, False, False]
    twins = torch.tensor([[1.0, 0.0], [0.99, 0.1]])
    assert max_cosines(twins, twins[:1]).min() > 0.9 and recovered(twins, twins[:1]).tolist() == [True, False]


def test_greedy_matching_against_all_matchings():
    for seed in range(20):
        truth, found = rows(4, 2, seed), rows(5, 2, seed + 100)
        near = cosines(truth, found) >= 0.8
        most = max(sum(bool(near[i, j]) for i, j in enumerate(order)) for order in permutations(range(5), 4))
        greedy = int(recovered(truth, found, 0.8).sum())
        assert most / 2 <= greedy <= most
        if int(near.sum(0).max()) <= 1:
            assert greedy == most
