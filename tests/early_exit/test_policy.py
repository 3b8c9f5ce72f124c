"""The exit distribution, its exact gradient and REINFORCE: against walks, autograd and enumeration."""

import itertools

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.early_exit import (
    PolicyConfig,
    exact_gradient,
    exit_distribution,
    make_rewards,
    policy_exits,
    reinforce_gradient,
    sampled_exits,
    stopped_at,
    train_policy,
)


def normal(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n_layers", [1, 2, 3, 7])
def test_the_exit_distribution_is_a_walk_through_the_layers(n_layers):
    scores = normal(5, n_layers)
    q = exit_distribution(scores)
    for row, found in zip(scores.sigmoid().tolist(), q.tolist(), strict=True):
        left = 1.0
        for t, p in enumerate(row):
            want = left if t == n_layers - 1 else left * p
            assert found[t] == pytest.approx(want, abs=1e-12)
            left *= 1 - p
    assert torch.allclose(q.sum(1), torch.ones(5, dtype=q.dtype))


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0, 20.0])
@pytest.mark.parametrize("n_layers", [1, 2, 6, 30])
def test_the_exact_gradient_equals_autograd(n_layers, scale):
    scores, rewards = normal(9, n_layers, seed=1, scale=scale).requires_grad_(True), normal(9, n_layers, seed=2)
    (want,) = torch.autograd.grad((exit_distribution(scores) * rewards).sum(), scores, allow_unused=True)
    found = exact_gradient(scores.detach(), rewards)
    assert torch.allclose(found, want if want is not None else torch.zeros_like(found), atol=1e-10)


def test_stops_that_are_certain_leave_a_finite_gradient():
    scores = torch.tensor([[60.0, 60.0, 0.0], [-60.0, 60.0, 0.0], [200.0, -200.0, 1.0]])
    found = exact_gradient(scores, torch.tensor([[1.0, 2.0, 3.0]]).expand(3, -1))
    assert found.isfinite().all() and found.abs().max() < 1e-6


@pytest.mark.parametrize("k", [2, 3])
def test_reinforce_is_exact_on_average_over_all_draws(k):
    scores, rewards = normal(1, 4, seed=3), normal(1, 4, seed=4)
    q, want = exit_distribution(scores)[0], exact_gradient(scores, rewards)
    mean = {own: torch.zeros_like(want) for own in (True, False)}
    for draw in itertools.product(range(4), repeat=k):
        at = torch.tensor(draw)[:, None]
        for leave_one_out, total in mean.items():
            total += q[at[:, 0]].prod() * reinforce_gradient(scores, rewards, at, leave_one_out)
    assert torch.allclose(mean[True], want, atol=1e-12)
    assert torch.allclose(mean[False], want * (k - 1) / k, atol=1e-12)  # the paper's baseline shrinks it


def test_reinforce_by_sampling_agrees_within_its_error():
    scores, rewards = normal(1, 5, seed=5), normal(1, 5, seed=6)
    generator = torch.Generator().manual_seed(0)
    many = torch.cat([reinforce_gradient(scores, rewards, sampled_exits(scores, 8, generator)) for _ in range(2_000)])
    error = many.std(0) / len(many) ** 0.5
    gap = (many.mean(0) - exact_gradient(scores, rewards)[0]).abs()
    assert (gap[:-1] < 4 * error[:-1]).all() and gap[-1] == 0


def test_greedy_copies_teach_nothing():
    scores, rewards = normal(20, 6, seed=7), normal(20, 6, seed=8)
    at = stopped_at(scores).expand(8, -1)
    assert not reinforce_gradient(scores, rewards, at).any()
    x = torch.randn(6, 20, 4, generator=torch.Generator().manual_seed(0))
    cfg = PolicyConfig(steps=5, batch=20, weight_decay=0.0, estimator="greedy")
    before = train_policy(x, rewards.float(), PolicyConfig(steps=0, batch=20))
    after = train_policy(x, rewards.float(), cfg)
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_one_exit_has_no_baseline():
    with pytest.raises(ConceptLabError, match="at least two"):
        reinforce_gradient(normal(3, 4), normal(3, 4), torch.zeros(1, 3, dtype=torch.long))


def test_the_sampled_exits_follow_the_distribution():
    scores = normal(3, 4, seed=9).float()
    drawn = sampled_exits(scores, 20_000, torch.Generator().manual_seed(1))
    share = torch.stack([(drawn == t).float().mean(0) for t in range(4)], 1)
    assert drawn.shape == (20_000, 3) and (share - exit_distribution(scores)).abs().max() < 0.02


def test_stopping_takes_the_first_above_one_half_and_leaves_the_scores_alone():
    scores = torch.tensor([[-1.0, 0.2, 3.0], [-1.0, -1.0, -1.0], [0.0, -1.0, 2.0], [1.0, 1.0, 1.0]])
    kept = scores.clone()
    assert stopped_at(scores).tolist() == [1, 2, 2, 0]
    assert torch.equal(scores, kept)


def test_rewards():
    losses = torch.tensor([[3.0, 2.0], [1.0, 0.5]])
    assert torch.equal(make_rewards(losses, 0.0), -losses)
    assert torch.allclose(make_rewards(losses, 0.1), torch.tensor([[-3.1, -2.2], [-1.1, -0.7]]))
    hard = make_rewards(losses, 0.1, torch.tensor([2, 1]))  # the first is hard: depth costs it nothing
    assert torch.allclose(hard, torch.tensor([[-3.0, -2.0], [-1.05, -0.6]]))


@pytest.mark.parametrize("estimator", ["exact", "sampled"])
def test_a_policy_learns_who_may_leave(estimator):
    generator = torch.Generator().manual_seed(0)
    easy = torch.rand(200, generator=generator) < 0.5
    x = torch.randn(4, 200, 8, generator=generator)
    x[..., 0] = torch.where(easy, 3.0, -3.0)
    losses = torch.where(easy[:, None], torch.zeros(200, 4), torch.tensor([2.0, 2.0, 2.0, 0.0]))
    policy = train_policy(x, make_rewards(losses, 0.1), PolicyConfig(steps=200, lr=0.02, estimator=estimator))
    at = policy_exits(policy, x)
    assert (at[easy] == 0).float().mean() > 0.95 and (at[~easy] == 3).float().mean() > 0.95


def test_training_is_seeded_and_leaves_the_global_generator_alone():
    x, rewards = torch.randn(3, 30, 5), torch.randn(30, 3)
    state = torch.random.get_rng_state()
    one, two, other = (
        train_policy(x, rewards, PolicyConfig(steps=3, estimator="sampled", seed=s)).W1 for s in (1, 1, 2)
    )
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_unknown_estimator_is_named():
    with pytest.raises(ConceptLabError, match="exact, sampled, greedy"):
        train_policy(torch.zeros(2, 3, 4), torch.zeros(3, 2), PolicyConfig(estimator="best"))
