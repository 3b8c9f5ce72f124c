"""Several units as a detector, agreement, length of reconstructions, and dictionaries trained by hand."""

import pytest
import torch

from conceptlab import sae as S
from conceptlab.core import auroc
from conceptlab.sae.by_hand import as_sae, copy, jump, no_restart, random_restart, restart_dead, start


def split_class(n=1_200, parts=4):
    """A class whose members are divided over `parts` units; further units are noise. texts: one a token."""
    g = torch.Generator().manual_seed(0)
    labels = torch.rand(n, generator=g) < 0.4
    part = torch.randint(parts, (n,), generator=g)
    own = (labels[:, None] & (part[:, None] == torch.arange(parts))).float()
    return torch.cat([own, torch.rand(n, 20, generator=g)], 1), labels, torch.arange(n)


def test_a_class_that_is_split_needs_its_parts():
    values, labels, texts = split_class()
    found = S.probe_draws(values, labels, texts, (1, 4), n_resamples=50)
    assert float(found[1][0]) == pytest.approx(0.625, abs=0.05)  # silent on three quarters of the members
    assert float(found[4][0]) > 0.99
    assert len(found[4]) == 51


def test_one_unit_is_the_best_direction_of_either_sign():
    g = torch.Generator().manual_seed(1)
    values, labels, texts = torch.randn(400, 6, generator=g), torch.rand(400, generator=g) < 0.5, torch.arange(400)
    values[:, 3] -= labels.float()
    areas = []
    for h in (0, 1):
        seen, rest = texts % 2 == h, texts % 2 != h
        off = auroc(values[seen], labels[seen]) - 0.5
        index = int(off.abs().argmax())
        sign = off[index].sign()
        areas.append(auroc(sign * values[rest][:, [index]], labels[rest])[0])
    found = S.probe_draws(values, labels, texts, (1,), 10)[1][0]
    assert float(found) == pytest.approx(float(sum(areas)) / 2, abs=1e-5)


def test_agreement_counts_pairs():
    values = torch.arange(6.0)[:, None].expand(6, 2).clone()
    values[:, 1] *= -1
    labels = torch.tensor([0, 0, 0, 1, 1, 2])  # strongest three of the first unit: 1 1 2, of the second: 0 0 0
    assert S.agreement(values, labels, top=3).tolist() == pytest.approx([1 / 3, 1])


def test_length_ratio_is_the_factor_of_a_shrunk_reconstruction():
    p = {"W_enc": torch.eye(3), "b_enc": torch.zeros(3), "W_dec": torch.eye(3), "b_dec": torch.zeros(3)}
    x = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    assert S.length_ratio(as_sae(p), x) == pytest.approx(1)
    assert S.length_ratio(as_sae(p | {"W_enc": 0.7 * torch.eye(3)}), x) == pytest.approx(0.7)


def test_weights_by_hand_start_as_activations_and_can_be_copied():
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    p = start(x, 6, seed=1)
    assert torch.allclose(p["W_dec"].norm(dim=1), torch.ones(6)) and torch.allclose(p["W_enc"], 0.1 * p["W_dec"].T)
    near = torch.cosine_similarity(p["W_dec"][:, None], (x - x.mean(0))[None], -1).amax(1)
    assert torch.allclose(near, torch.ones(6), atol=1e-5)
    other = copy(p)
    with torch.no_grad():
        other["b_enc"] += 1
    assert not p["b_enc"].any() and other["b_enc"].requires_grad
    f = torch.relu((x - p["b_dec"]) @ p["W_enc"])
    assert torch.allclose(as_sae(p).encode(x), f, atol=1e-6)


def test_jump_sends_the_given_slopes_back():
    z = torch.tensor([[0.2, 0.9], [0.6, 0.4]], requires_grad=True)
    theta = torch.tensor([0.5, 0.5], requires_grad=True)
    f, on = jump(z, theta, torch.tensor(0.3), lambda z, t, w: (10 * torch.ones_like(z), w * torch.ones_like(z)))
    assert f.tolist() == [[0, pytest.approx(0.9)], [pytest.approx(0.6), 0]] and on.tolist() == [[0, 1], [1, 0]]
    (f.sum() + 2 * on.sum()).backward()
    assert z.grad.tolist() == [[0, 1], [1, 0]]
    assert theta.grad.tolist() == pytest.approx([2 * 10 + 2 * 2 * 0.3] * 2)


def test_restarts_touch_the_dead_alone():
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    p = start(x, 5)
    with torch.no_grad():
        p["b_enc"][2] = -100.0  # never fires
    old = copy(p)

    def features_of(x, p):
        return torch.relu((x - p["b_dec"]) @ p["W_enc"] + p["b_enc"])

    assert restart_dead(p, features_of, x, no_restart) == pytest.approx(0.2)
    assert all(torch.equal(p[k], old[k]) for k in p)
    assert restart_dead(p, features_of, x, random_restart) == pytest.approx(0.2)
    live = torch.tensor([0, 1, 3, 4])
    assert torch.equal(p["W_dec"][live], old["W_dec"][live]) and float(p["b_enc"][2]) == 0
    assert restart_dead(p, features_of, x) == 0
