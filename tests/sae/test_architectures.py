"""Dictionaries: every architecture by hand, gradients, and the metrics."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from conceptlab import sae as S
from conceptlab.core import ConceptLabError, ranking


def make(d_in=6, d_sae=10, k=3, seed=0, **fields):
    config = dict(architecture="topk", d_in=d_in, d_sae=d_sae, k=k, model_name="m", hook_layer=0, hook_name="h")
    sae = S.TopKSAE(S.SAEConfig(**config | fields), seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        sae.b_enc.copy_(0.1 * torch.randn(d_sae, generator=generator))
        sae.b_dec.copy_(torch.randn(d_in, generator=generator))
    return sae


def batch(n=20, d=6, seed=5):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


# ---- the forward pass ------------------------------------------------------------------------------------
def test_two_tokens_and_four_features_by_hand():
    sae = make(d_in=2, d_sae=4, k=2)
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[1.0, 0.0, -1.0, 1.0], [0.0, 1.0, 0.0, 1.0]]))
        sae.b_enc.copy_(torch.tensor([0.0, 0.5, 0.0, -1.0]))
        sae.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.6, 0.8]]))
        sae.b_dec.copy_(torch.tensor([1.0, 1.0]))
    x = torch.tensor([[4.0, 3.0], [-1.0, 0.0]])
    # 1. x - b_dec:          [3, 2]                  [-2, -1]
    # 2. scores + b_enc:     [3, 2.5, -3, 4]         [-2, -0.5, 2, -4]
    # 3. relu, two largest:  [3, 0, 0, 4]            [0, 0, 2, 0]     (the second place goes to a zero)
    assert torch.allclose(sae.encode(x), torch.tensor([[3.0, 0, 0, 4.0], [0, 0, 2.0, 0]]))
    # 4. decode: 3 [1, 0] + 4 [.6, .8] + [1, 1]      2 [-1, 0] + [1, 1]
    assert torch.allclose(sae(x), torch.tensor([[6.4, 4.2], [-1.0, 1.0]]))


def test_encode_keeps_the_k_largest_and_any_leading_shape():
    sae, x = make(), batch(20).view(4, 5, 6)
    with torch.no_grad():
        sae.b_enc.fill_(20.0)  # all scores positive: exactly k survive
        features = sae.encode(x)
    assert features.shape == (4, 5, 10) and bool(((features > 0).sum(-1) == 3).all())
    scores = sae.pre_activations(x.view(-1, 6)).view(4, 5, 10)
    kept = features > 0
    assert torch.equal(features[kept], scores[kept])
    assert bool((scores.where(kept, torch.inf).amin(-1) >= scores.where(kept.logical_not(), -torch.inf).amax(-1)).all())


def test_sparse_and_dense_decoding_agree():
    sae, x = make(), batch()
    assert torch.allclose(sae.decode_sparse(*sae.encode_sparse(x)), sae.decode(sae.encode(x)), atol=1e-5)


def test_folding_the_scale_into_the_weights():
    sae, x = make(), batch()
    before = sae(x / 3.7) * 3.7
    sae.scale_inputs(3.7)
    assert torch.allclose(sae(x), before, atol=1e-5)


def test_decoder_rows_have_norm_one():
    sae = make()
    with torch.no_grad():
        sae.W_dec *= torch.arange(1.0, 11)[:, None]
        direction = F.normalize(sae.W_dec, dim=1)
    sae.normalise_decoder()
    assert torch.allclose(sae.W_dec, direction, atol=1e-6)


def test_residual_directions_carry_the_gain(tiny_llama):
    lm = tiny_llama()
    lm.post_mlp_gain = lambda layer: torch.arange(1.0, 17)
    sae = make(d_in=16)
    sae.cfg = replace(sae.cfg, hook_name="blocks.0.mlp.hook_out")
    assert torch.allclose(sae.residual_directions(lm), F.normalize(sae.W_dec, dim=1) * torch.arange(1.0, 17))
    sae.cfg = replace(sae.cfg, hook_name="blocks.0.hook_mlp_out")
    assert torch.equal(sae.residual_directions(lm), sae.directions()), "what stands behind the norm needs no gain"
    sae.cfg = replace(sae.cfg, hook_name="blocks.0.mlp.hook_post")
    with pytest.raises(ConceptLabError, match="dictionary of neurons"):
        sae.residual_directions(lm)


# ---- gradients of the sparse products --------------------------------------------------------------------
def test_sparse_products_have_the_gradients_of_the_dense_ones():
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(5, 12, generator=generator, dtype=torch.float64, requires_grad=True)
    D = torch.randn(12, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(12, generator=generator, dtype=torch.float64, requires_grad=True)
    x = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    target = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    values, indices = S.top_scores(x, W, bias, 8)  # 8 of 12: some kept scores are negative and become 0
    assert bool((values == 0).any())
    sparse = (S.weighted_rows(values, indices, D) - target).square().sum()
    found = torch.autograd.grad(sparse, (W, bias, D))
    scores = x @ W + bias
    top = scores.topk(8, dim=-1)
    dense = torch.zeros_like(scores).scatter(-1, top.indices, top.values.relu()) @ D
    for a, b in zip(found, torch.autograd.grad((dense - target).square().sum(), (W, bias, D)), strict=True):
        assert torch.allclose(a, b, atol=1e-10)


def test_loss_is_the_share_of_variance_left_and_reaches_every_weight():
    sae, x = make(), batch(64)
    loss, info = sae.loss(x)
    assert float(loss.detach()) == pytest.approx(1 - S.fve(x, sae(x).detach()), abs=1e-5)
    assert float(info["fve"]) == pytest.approx(1 - float(loss.detach()))
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in sae.parameters())


def test_dead_features_learn_from_the_error_alone():
    sae, x = make(d_sae=12, k=2), batch(64)
    with torch.no_grad():
        sae.b_enc[8:] = -30.0  # these four never make it into the top 2
    plain, info = sae.loss(x)
    dead = torch.zeros(12, dtype=torch.bool)
    dead[8:] = True
    assert not bool(dead[info["fired"].nonzero()[:, 0]].any())
    (without,) = torch.autograd.grad(plain, sae.W_dec)
    assert float(without[8:].abs().sum()) == 0
    with torch.no_grad():
        sae.b_enc[8:] = 0.0
        sae.b_enc[:8] = 30.0
    loss, _ = sae.loss(x, dead=dead)
    (revived,) = torch.autograd.grad(loss, sae.W_dec)
    assert float(revived[8:].abs().sum()) > 0
    # no dead feature: the same loss as without the argument
    assert torch.equal(sae.loss(x, dead=torch.zeros(12, dtype=torch.bool))[0], sae.loss(x)[0])


# ---- the architectures -----------------------------------------------------------------------------------
ALL = ["relu", "gated", "topk", "batchtopk", "jumprelu"]


def random_sae(kind, d_in=6, d_sae=10, k=3, seed=0):
    """Any architecture with every weight away from its initial value, in float64."""
    sae = S.make_sae(S.SAEConfig(kind, d_in, d_sae, k, "m", 0, "h"), seed).double()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for p in sae.parameters():
            p += 0.2 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
        sae.normalise_decoder()
        if kind == "jumprelu":
            sae.log_threshold -= 1.0
        if kind == "batchtopk":
            sae.threshold.fill_(0.4)
    return sae


@pytest.mark.parametrize("kind", ALL)
def test_scale_folds_into_the_weights_and_loss_has_no_unit(kind):
    sae, x = random_sae(kind), batch(64).double()
    loss = float(sae.loss(x / 3.7, sparsity=0.01)[0].detach())  # before the rest: it may move a threshold
    features, x_hat = sae.encode(x / 3.7), sae(x / 3.7)
    assert bool((features >= 0).all()) and 0 < float((features > 0).double().mean()) < 0.9
    sae.scale_inputs(3.7)
    assert torch.allclose(sae.encode(x), 3.7 * features) and torch.allclose(sae(x), 3.7 * x_hat)
    assert float(sae.loss(x, sparsity=0.01)[0].detach()) == pytest.approx(loss, rel=1e-9)


@pytest.mark.parametrize("kind", ["relu", "gated", "topk", "jumprelu"])
def test_loss_sees_what_encode_gives(kind):
    sae, x = random_sae(kind), batch(64).double()
    loss, info = sae.loss(x)
    features = sae.encode(x)
    assert float(info["fve"]) == pytest.approx(S.fve(x, sae(x)), abs=1e-9)
    assert float(info["l0"]) == pytest.approx(float((features > 0).sum(1).double().mean()))
    assert bool(info["fired"][(features > 0).any(0)].all())
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in sae.parameters())


def test_relu_loss_by_hand():
    sae, x = random_sae("relu"), batch(8).double()
    features, error = sae.encode(x), x - sae(x)
    variance = float((x - x.mean(0)).square().sum())
    by_hand = float(error.detach().square().sum()) / variance
    by_hand += 0.7 * float(features.detach().sum()) / (8 * (variance / 8) ** 0.5)
    assert float(sae.loss(x, sparsity=0.7)[0].detach()) == pytest.approx(by_hand)


def test_decoder_norm_penalty_does_not_depend_on_the_norms():
    sae, x = random_sae("relu"), batch(30).double()
    sae.unit_norm = False
    loss, x_hat = sae.loss(x)[0], sae(x)
    sizes = torch.linspace(0.1, 5, 10).double()
    with torch.no_grad():  # small features with long rows: the plain penalty would call that sparse
        sae.W_enc /= sizes
        sae.b_enc /= sizes
        sae.W_dec *= sizes[:, None]
    assert torch.allclose(sae.loss(x)[0], loss) and torch.allclose(sae(x), x_hat)
    sae.finish()
    assert torch.allclose(sae(x), x_hat) and torch.allclose(sae.W_dec.norm(dim=1), torch.ones(10).double())
    sae.unit_norm = True
    assert torch.allclose(sae.loss(x)[0], loss)


def test_gated_by_hand():
    sae = S.GatedSAE(S.SAEConfig("gated", 2, 2, 1, "m", 0, "h"))
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(2))
        sae.b_gate.copy_(torch.tensor([-1.0, 1.0]))
        sae.b_mag.copy_(torch.tensor([0.5, -0.5]))
        sae.r_mag.copy_(torch.tensor([2.0, 3.0]).log())
    # projected: [2, -0.5]; gate: [1, 0.5] both open; magnitude: relu([2 * 2 + 0.5, 3 * -0.5 - 0.5]) = [4.5, 0]
    # projected: [0.9, 1]; gate: [-0.1, 2], the first shut; magnitude: [2.3, 2.5]
    found = sae.encode(torch.tensor([[2.0, -0.5], [0.9, 1.0]]))
    assert torch.allclose(found, torch.tensor([[4.5, 0.0], [0.0, 2.5]]))


def test_the_gate_learns_through_the_frozen_decoder_alone():
    sae, x = random_sae("gated"), batch(40).double()
    (found,) = torch.autograd.grad(sae.loss(x, sparsity=0.3)[0], sae.W_dec)
    error = (x - sae(x)).square().sum() / (x - x.mean(0)).square().sum()
    (plain,) = torch.autograd.grad(error, sae.W_dec)
    assert torch.allclose(found, plain), "neither penalty nor auxiliary term moves the decoder"
    assert torch.autograd.grad(sae.loss(x, sparsity=0.0)[0], sae.b_gate)[0].abs().sum() > 0


def test_batch_topk_against_a_sorted_list():
    sae, x = random_sae("batchtopk"), batch(20).double()
    with torch.no_grad():
        sae.b_enc += 2  # enough positive scores
    scores = sae.pre_activations(x)
    kept = sorted(scores.flatten().tolist(), reverse=True)[: 3 * 20]
    features = sae.encode_batch(x)
    assert sorted(features[features > 0].tolist(), reverse=True) == kept
    assert len(set((features > 0).sum(1).tolist())) > 1, "some tokens get more than others"
    sae.threshold.zero_()
    _, info = sae.loss(x)
    assert float(info["l0"]) == 3.0 and float(sae.threshold) == pytest.approx(kept[-1])
    sae.threshold.fill_(1.0)
    sae.loss(x)
    assert float(sae.threshold) == pytest.approx(0.95 + 0.05 * kept[-1]), "a running mean"


@pytest.mark.parametrize(("function", "smooth"), [(S.jump_relu, lambda t: 1 - t**2), (S.step, lambda t: 2 * (1 - t))])
def test_straight_through_gradients_are_those_of_the_mean_over_smooth_data(function, smooth):
    z = torch.linspace(-1, 1, 400_001, dtype=torch.float64)[:, None]  # density 1/2 on [-1, 1]
    for t in (0.2, 0.5, 0.7):
        threshold = torch.tensor([t], dtype=torch.float64, requires_grad=True)
        mean = function(z, threshold, 0.05).mean()
        (found,) = torch.autograd.grad(mean, threshold)
        assert float(mean.detach()) == pytest.approx(smooth(t) / 4, abs=1e-4)  # integral of z or 1 above t, times 1/2
        difference = (smooth(t + 1e-4) - smooth(t - 1e-4)) / (4 * 2e-4)
        assert float(found[0]) == pytest.approx(difference, rel=1e-3)


def test_straight_through_gradients_by_loop():
    g = torch.Generator().manual_seed(2)
    z = torch.randn(9, 4, generator=g).double().requires_grad_()
    threshold = torch.tensor([0.1, 0.3, 0.5, 0.7]).double().requires_grad_()
    weight, width = torch.randn(9, 4, generator=g).double(), 0.4
    d_z, d_t = torch.autograd.grad((weight * S.jump_relu(z, threshold, width)).sum(), (z, threshold))
    (d_step,) = torch.autograd.grad((weight * S.step(z, threshold, width)).sum(), threshold)
    want_t, want_step = [0.0] * 4, [0.0] * 4
    for b in range(9):
        for i in range(4):
            value, t, w = (float(x.detach()) for x in (z[b, i], threshold[i], weight[b, i]))
            assert float(d_z[b, i]) == (w if value > t else 0.0)
            if abs(value - t) < width / 2:
                want_t[i] -= t / width * w
                want_step[i] -= w / width
    assert d_t.tolist() == pytest.approx(want_t) and d_step.tolist() == pytest.approx(want_step)
    assert any(want_t)


def test_jumprelu_loss_counts_features():
    sae, x = random_sae("jumprelu"), batch(30).double()
    plain, with_penalty = (float(sae.loss(x, sparsity=c)[0].detach()) for c in (0.0, 0.25))
    active = [sum(float(z) > float(t) for z, t in zip(row, sae.threshold, strict=True))
              for row in (x - sae.b_dec) @ sae.W_enc + sae.b_enc]  # fmt: skip
    assert plain == pytest.approx(1 - S.fve(x, sae(x)))
    assert with_penalty - plain == pytest.approx(0.25 * sum(active) / 30)


def test_jumprelu_starts_with_k_features():
    sae, x = S.make_sae(S.SAEConfig("jumprelu", 6, 40, 5, "m", 0, "h")), batch(500)
    sae.start(x)
    assert float((sae.encode(x) > 0).float().sum(1).mean()) == pytest.approx(5, abs=0.1)


def test_unknown_architecture():
    with pytest.raises(ConceptLabError, match="Unknown architecture 'magic'; known are relu, gated, topk"):
        S.make_sae(S.SAEConfig("magic", 6, 10, 3, "m", 0, "h"))


# ---- metrics ---------------------------------------------------------------------------------------------
def test_variance_explained():
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0]])  # variance summed: 2
    assert S.fve(x, x) == 1.0
    assert S.fve(x, x.mean(0).expand(2, 2)) == 0.0
    assert S.fve(x, torch.tensor([[1.0, 0.0], [2.0, 0.0]])) == pytest.approx(0.5)


def test_variance_explained_by_group_averages_to_the_whole():
    x, x_hat, groups = batch(30), batch(30, seed=6) * 0.1, torch.arange(30) % 7 * 3  # group names with gaps
    by_group = S.fve_by_group(x, x_hat, groups)
    assert by_group.shape == (7,) and float(by_group.mean()) == pytest.approx(S.fve(x, x_hat), abs=1e-5)


def test_quality_counts():
    sae, x = make(d_sae=12, k=2), batch(50)
    with torch.no_grad():
        sae.b_enc[6:] = -100.0
    features = sae.encode(x)
    found = S.quality(sae, x, batch_size=8)
    assert found.fve == pytest.approx(S.fve(x, sae(x).detach()), abs=1e-5)
    assert found.l0 == pytest.approx(float((features > 0).float().sum(1).mean())) and found.l0 <= 2
    assert found.dead == pytest.approx(float(((features > 0).sum(0) == 0).float().mean())) and found.dead >= 0.5


def test_spliced_loss(tiny_llama):
    lm = tiny_llama()
    ids = torch.randint(5, 500, (5, 9), generator=torch.Generator().manual_seed(0))
    clean = S.spliced_loss(lm, ids, 1, None, batch_size=2)
    logp = lm.logits(ids).log_softmax(-1)
    by_hand = [-sum(float(logp[r, p, ids[r, p + 1]]) for p in range(1, 8)) / 7 for r in range(5)]
    assert torch.allclose(clean, torch.tensor(by_hand), atol=1e-5)
    assert torch.allclose(S.spliced_loss(lm, ids, 1, lambda x: x), clean, atol=1e-6)
    assert float((S.spliced_loss(lm, ids, 1, torch.zeros_like) - clean).abs().max()) > 1e-6
    seen = []
    S.spliced_loss(lm, ids, 0, lambda x: seen.append(len(x)) or x, batch_size=5)
    assert seen == [5 * 8], "position 0 is left alone"
    assert torch.equal(S.spliced_loss(lm, ids, 1, None, batch_size=2), clean), "the model is as before"


def test_loss_recovered():
    clean, zero = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 4.0, 5.0])
    assert S.loss_recovered(clean, clean, zero)[:3] == (1.0, 1.0, 1.0)
    assert S.loss_recovered(clean, zero, zero)[:3] == (0.0, 0.0, 0.0)
    half = S.loss_recovered(clean, torch.tensor([1.0, 3.0, 5.0]), zero)
    assert half.value == pytest.approx(0.5) and half.low < 0.5 < half.high and half.n == 3


def test_auroc_against_counting_pairs():
    g = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 6, (40, 3), generator=g).float()  # many ties
    labels = torch.rand(40, generator=g) < 0.3
    found = ranking.auroc(scores, labels)
    for column in range(3):
        wins = [
            (p > n) + 0.5 * (p == n) for p in scores[labels, column].tolist() for n in scores[~labels, column].tolist()
        ]
        assert float(found[column]) == pytest.approx(sum(wins) / len(wins), abs=1e-6)
    assert float(ranking.auroc(labels.float()[:, None], labels)) == 1.0
    assert float(ranking.auroc(torch.zeros(40, 1), labels)) == 0.5
    with pytest.raises(ConceptLabError, match="inside and outside"):
        ranking.auroc(scores, torch.zeros(40, dtype=torch.bool))


def test_auroc_draws():
    g = torch.Generator().manual_seed(0)
    scores, labels, texts = torch.randn(60, generator=g), torch.arange(60) % 3 == 0, torch.arange(60) // 6
    draws = ranking.auroc_draws(scores, labels, texts, n_resamples=300)
    assert len(draws) == 301 and float(draws[0]) == pytest.approx(
        float(ranking.auroc(scores[:, None], labels)), abs=1e-6
    )
    found = ranking.draws_interval(draws, 10)
    assert found.low < found.value < found.high and found.n == 10
    assert torch.equal(draws, ranking.auroc_draws(scores, labels, texts, n_resamples=300)), "the seed decides"
    # a resample by hand: repeat the items of the drawn texts
    picks = torch.randint(10, (300, 10), generator=torch.Generator().manual_seed(0))[0]
    items = torch.cat([(texts == t).nonzero()[:, 0] for t in picks])
    assert float(draws[1]) == pytest.approx(float(ranking.auroc(scores[items, None], labels[items])), abs=1e-6)
    # a bootstrap over texts is wider than one over items when the items of a text go together
    same = (texts % 2).float() + 0.01 * scores
    wide, narrow = (ranking.auroc_draws(same, texts % 4 < 2, t)[1:] for t in (texts, None))
    assert wide[~wide.isnan()].std() > narrow[~narrow.isnan()].std()


@pytest.mark.parametrize("architecture", sorted(S.ARCHITECTURES))
def test_some_features_are_encoded_as_among_all(architecture):
    sae = S.ARCHITECTURES[architecture](S.SAEConfig(architecture, 8, 24, 3, "m", 0, "blocks.0.mlp.hook_out"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in sae.parameters():
            value += 0.1 * torch.randn(value.shape, generator=generator)
        if architecture == "batchtopk":
            sae.threshold.fill_(0.3)
        x, index = torch.randn(2, 5, 8, generator=generator), torch.tensor([7, 0, 23])
        whole = sae.encode(x)
        assert 0 < float((whole[..., index] > 0).float().mean()) < 1
        torch.testing.assert_close(sae.encode(x, index), whole[..., index])
