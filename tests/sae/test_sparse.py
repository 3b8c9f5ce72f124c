"""The fast parts of TopK training against sorting, dense products and autograd."""

import itertools

import numpy as np
import pytest
import torch

import conceptlab.sae.sparse as S


def test_chunks_of_tokens_give_what_one_product_gives(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    x, W = torch.randn(50, 6, generator=generator), torch.randn(6, 256, generator=generator)
    bias = torch.randn(256, generator=generator)
    whole = S.top_scores(x, W, bias, 8)
    monkeypatch.setattr(S, "_CHUNK", 256 * 7)  # 50 tokens are not a multiple of 7
    parts = S.top_scores(x, W, bias, 8)
    assert torch.equal(whole[1].sort().values, parts[1].sort().values)
    assert torch.allclose(whole[0].sort().values, parts[0].sort().values, atol=1e-6)


def test_sums_over_uses_are_those_of_a_loop():
    generator = torch.Generator().manual_seed(2)
    indices = torch.stack([torch.randperm(9, generator=generator)[:3] for _ in range(20)])
    indices[indices == 4] = 8  # a feature that nobody uses
    values, rows = torch.randn(20, 3, generator=generator), torch.randn(20, 5, generator=generator)
    expected = np.zeros((9, 5))
    for b, j in itertools.product(range(20), range(3)):
        expected[indices[b, j]] += values[b, j].item() * rows[b].numpy()
    np.testing.assert_allclose(
        S._Uses(indices, torch.arange(20).repeat_interleave(3), 9).sum(values, rows), expected, atol=1e-5
    )
    assert not expected[4].any()


def test_more_features_than_16_bits_count():
    indices = torch.tensor([[70_000, 3], [65_536 + 3, 70_000]])  # 3 and 65,539 are the same number in 16 bits
    found = S._Uses(indices, torch.tensor([0, 0, 1, 1]), 80_000).sum(torch.ones(2, 2), torch.tensor([[1.0], [10.0]]))
    assert found.nonzero()[:, 0].tolist() == [3, 65_539, 70_000]
    assert found[[3, 65_539, 70_000], 0].tolist() == [1.0, 10.0, 11.0]


@pytest.mark.parametrize("chunk", [1 << 22, 300])
def test_gradients_of_a_whole_step_are_those_of_the_dense_one(chunk, monkeypatch):
    monkeypatch.setattr(S, "_CHUNK", chunk)
    generator = torch.Generator().manual_seed(3)

    def weight(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    W_enc, b_enc, W_dec, x = weight(6, 64), weight(64), weight(64, 6), weight(30, 6).detach()
    values, indices = S.top_scores(x, W_enc, b_enc, 24)  # 24 of 64: some are negative and become 0
    assert bool((values == 0).any())
    sparse = (S.weighted_rows(values, indices, W_dec) - x).square().sum()
    scores = x @ W_enc + b_enc
    top = scores.topk(24)
    dense = (torch.zeros_like(scores).scatter(1, top.indices, top.values.relu()) @ W_dec - x).square().sum()
    assert torch.allclose(sparse, dense, rtol=1e-12)
    weights = (W_enc, b_enc, W_dec)
    for ours, theirs in zip(torch.autograd.grad(sparse, weights), torch.autograd.grad(dense, weights), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-9)


def test_gradients_can_be_taken_twice_from_one_graph():
    generator = torch.Generator().manual_seed(4)
    values = torch.rand(4, 2, generator=generator, requires_grad=True)
    rows = torch.randn(7, 3, generator=generator, requires_grad=True)
    out = S.weighted_rows(values, torch.tensor([[0, 1], [2, 3], [4, 5], [6, 0]]), rows).sum()
    first = torch.autograd.grad(out, (values, rows), retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, torch.autograd.grad(out, (values, rows)), strict=True))


def test_selection_over_a_batch_has_the_values_and_gradients_of_the_dense_one():
    generator = torch.Generator().manual_seed(5)

    def weight(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    W_enc, b_enc, W_dec, x = weight(6, 64), weight(64), weight(64, 6), weight(30, 6).detach()
    x[3] = 0  # with the negative biases below this token keeps nothing
    b_enc.data -= 1
    values, tokens, features, cut = S.batch_scores(x, W_enc, b_enc, 90, lambda top: top.min())
    uses = torch.bincount(tokens, minlength=30)
    assert len(values) == 90 and uses[3] == 0 and uses.max() > 3 and bool((tokens.diff() >= 0).all())
    sparse = (S.weighted_rows(values, features, W_dec, uses.cumsum(0) - uses) - x).square().sum()
    scores = (x @ W_enc + b_enc).relu()
    assert float(cut) == pytest.approx(float(scores.flatten().topk(90).values[-1].detach()))
    dense = ((scores * (scores >= cut)) @ W_dec - x).square().sum()
    assert torch.allclose(sparse, dense, rtol=1e-12)
    weights = (W_enc, b_enc, W_dec)
    for ours, theirs in zip(torch.autograd.grad(sparse, weights), torch.autograd.grad(dense, weights), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-9)
