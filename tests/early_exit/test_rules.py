"""Exits, hardness, rules and comparisons at equal depth, against loops and enumeration."""

import itertools

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.early_exit import (
    Exits,
    HeadConfig,
    States,
    Stops,
    all_confident,
    all_patient,
    confident_at,
    dealt,
    first_right,
    fit_exits,
    fit_heads,
    fixed,
    gain_intervals,
    gains,
    inside,
    memorised_layer,
    mixed,
    patient_at,
    rivals,
    stops,
)


@pytest.fixture
def exits():
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(3, (50,), generator=generator)
    logits = torch.randn(6, 50, 3, generator=generator)
    logits += torch.nn.functional.one_hot(y, 3) * torch.linspace(0, 3, 6)[:, None, None]
    return Exits(logits, y)


@pytest.mark.parametrize(
    ("row", "layer"),
    [
        ([1, 1, 1, 1], 1), ([0, 1, 1, 1], 2), ([0, 0, 0, 1], 4), ([0, 0, 0, 0], 4), ([1, 1, 1, 0], 4),
        ([1, 0, 1, 1], 3), ([1], 1), ([0], 1),
    ],
)  # fmt: skip
def test_memorised_layer(row, layer):
    assert memorised_layer(torch.tensor([row], dtype=torch.bool)).tolist() == [layer]


def test_losses_answers_and_confidence(exits):
    want = torch.nn.functional.cross_entropy(exits.logits[2], exits.targets, reduction="none")
    assert exits.losses.shape == (50, 6) and torch.allclose(exits.losses[:, 2], want)
    assert torch.equal(exits.correct[:, 4], exits.logits[4].argmax(1) == exits.targets)
    assert torch.allclose(exits.confidence[:, 1], exits.logits[1].softmax(1).amax(1))


def test_confidence_and_patience_against_loops(exits):
    for threshold in (0.0, 0.5, 0.8, 1.1):
        at = [next((t for t, c in enumerate(row) if c >= threshold), 5) for row in exits.confidence.tolist()]
        assert confident_at(exits, threshold).tolist() == at
    for patience in range(7):
        want = []
        for row in exits.answers.tolist():
            same = [len(list(g)) for _, g in itertools.groupby(row)]
            run = [i for n in same for i in range(n)]
            want.append(next((t for t, r in enumerate(run) if r >= patience), 5))
        assert patient_at(exits, patience).tolist() == want


def test_the_oracle_leaves_at_the_first_right_exit_and_at_once_where_none_is():
    logits = torch.zeros(3, 2, 2)
    logits[:, 0, 1] = torch.tensor([-1.0, 1.0, 1.0])
    logits[:, 1, 1] = 1.0
    found = Exits(logits, torch.tensor([1, 0]))
    assert first_right(found).tolist() == [1, 0]
    assert stops(found, first_right(found)).accuracy == 0.5


def test_dealt_depths_are_the_mean_over_all_permutations(exits):
    few = Exits(exits.logits[:, :5], exits.targets[:5])
    depth = torch.tensor([1.0, 6.0, 2.0, 2.0, 4.0])
    ways = [few.correct.double()[torch.arange(5), torch.tensor(w).long() - 1] for w in
            itertools.permutations(depth.tolist())]  # fmt: skip
    found = dealt(few, depth)
    assert torch.allclose(found.correct, torch.stack(ways).mean(0))
    assert found.mean_depth == pytest.approx(3.0)


def test_a_fixed_exit_between_two_layers_is_their_mixture(exits):
    right = exits.correct.double()
    assert torch.equal(fixed(exits, 1.0).correct, right[:, 0]) and torch.equal(fixed(exits, 6.0).correct, right[:, 5])
    assert torch.allclose(fixed(exits, 2.25).correct, 0.75 * right[:, 1] + 0.25 * right[:, 2])
    for depth in (0.5, 6.5, float("nan")):
        with pytest.raises(ConceptLabError, match="between 1 and 6"):
            fixed(exits, depth)


def test_mixtures_have_the_depth_asked_for(exits):
    for tried in rivals(exits).values():
        depths = [s.mean_depth for s in tried]
        for depth in torch.linspace(min(depths), max(depths), 9).tolist():
            assert mixed(tried, depth).mean_depth == pytest.approx(depth)
        assert mixed(tried, 0.0).mean_depth == min(depths) and mixed(tried, 99.0).mean_depth == max(depths)
    a, b = Stops(torch.ones(2), torch.zeros(2)), Stops(3 * torch.ones(2), torch.ones(2))
    assert mixed([b, a], 1.5).accuracy == 0.25


def test_the_rules_cover_their_range(exits):
    for tried in (all_confident(exits), all_patient(exits)):
        assert min(s.mean_depth for s in tried) == 1 and max(s.mean_depth for s in tried) == 6


def test_dealing_the_oracle_loses_and_dealing_one_depth_changes_nothing(exits):
    best = stops(exits, first_right(exits))
    found = gains(exits, [best], rivals(exits))
    assert float(found["dealt"].mean()) > 0.1
    level = stops(exits, torch.full((50,), 3))
    assert torch.equal(gains(exits, [level], rivals(exits))["dealt"], torch.zeros(50, dtype=torch.float64))
    interval = gain_intervals(exits, [best], rivals(exits), 200)["dealt"]
    assert interval.low < interval.value < interval.high and interval.n == 50
    with pytest.raises(ConceptLabError, match="no result"):
        gains(exits, [], rivals(exits))


def test_results_at_the_ends_are_left_out():
    tried = [Stops(torch.full((2,), d), torch.ones(2)) for d in (1.0, 3.0, 5.0, 9.5)]
    assert [s.mean_depth for s in inside(tried, 10)] == [1.0, 3.0, 5.0]
    assert [s.mean_depth for s in inside(tried, 10, 0.2)] == [3.0, 5.0]


# ---- heads ----------------------------------------------------------------------------------------------
@pytest.fixture
def states():
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(3, (240,), generator=generator)
    x = torch.randn(4, 240, 12, generator=generator)
    x[..., :3] += torch.nn.functional.one_hot(y, 3) * torch.linspace(0, 4, 4)[:, None, None]
    return States(x[:, :160], x[:, 160:], y[:160], y[160:], 3)


def test_heads_find_what_is_there_and_no_more(states):
    train, test = fit_exits(states)
    accuracy = test.correct.float().mean(0)
    assert accuracy[0] < 0.5 and accuracy[3] > 0.9
    assert (train.correct.float().mean(0) - accuracy).abs().max() < 0.15  # out of fold: as honest as the test
    shuffled = fit_exits(states.shuffled_labels())[1].correct.float().mean(0)
    noise = fit_exits(states.random_features())[1].correct.float().mean(0)
    assert shuffled.max() < 0.6 and noise.max() < 0.55


def test_a_layer_is_fitted_as_if_it_were_alone(states):
    cfg = HeadConfig(steps=40)
    W, b = fit_heads(states.train, states.y_train, 3, cfg)
    alone, bias = fit_heads(states.train[2:3], states.y_train, 3, cfg)
    assert torch.allclose(W[2], alone[0], atol=1e-5) and torch.allclose(b[2], bias[0], atol=1e-5)


def test_controls_change_only_what_they_say(states):
    shuffled, noise = states.shuffled_labels(), states.random_features()
    assert torch.equal(shuffled.train, states.train) and torch.equal(shuffled.y_test, states.y_test)
    assert not torch.equal(shuffled.y_train, states.y_train)
    assert torch.equal(shuffled.y_train.sort().values, states.y_train.sort().values)
    assert noise.train.shape == states.train.shape and torch.equal(noise.y_train, states.y_train)


def test_labels_and_states_must_match(states):
    with pytest.raises(ConceptLabError, match="160 states and 3 labels"):
        fit_heads(states.train, states.y_train[:3], 3)
