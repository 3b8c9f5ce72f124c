"""Dictionaries: TopK by hand, planted features, gradients, files, and the metrics."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from conceptlab import sae as S
from conceptlab.activations import Harvest, harvest
from conceptlab.cache import ConceptLabError
from conceptlab.sae.train import _schedule, _start_from_data
from conceptlab.text import TokenRows, token_rows


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
    assert torch.equal(sae.residual_directions(lm), sae.W_dec * torch.arange(1.0, 17))


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
    assert not bool(dead[info["indices"]].any())
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


# ---- training --------------------------------------------------------------------------------------------
def planted(tmp_path, lm, n=6_000, d=16, n_features=24, active=2, seed=0):
    """A harvest whose activations are sums of `active` of `n_features` known directions."""
    g = torch.Generator().manual_seed(seed)
    truth = F.normalize(torch.randn(n_features, d, generator=g), dim=1)
    which = torch.rand(n, n_features, generator=g).topk(active).indices
    codes = torch.zeros(n, n_features).scatter(1, which, 1 + torch.rand(n, active, generator=g))
    x = codes @ truth + 0.3
    n_ctx = 61
    ids = torch.arange(n // 60 * n_ctx).view(-1, n_ctx) % 100 + 5
    rows = TokenRows(ids, torch.zeros_like(ids))
    (x.to(torch.float16).numpy()).tofile(tmp_path / "layer_00.f16")
    row = torch.arange(len(ids)).repeat_interleave(60).numpy()
    pos = (torch.arange(n) % 60 + 1).numpy()
    return Harvest(tmp_path, rows, (0,), row, pos, d, "mlp_output"), truth


def test_planted_features_are_recovered(tmp_path, tiny_llama):
    data, truth = planted(tmp_path, lm := tiny_llama(), 6_000)
    cfg = S.TrainConfig(d_sae=48, k=2, steps=400, batch_size=256, lr=5e-3)
    sae, history = S.train_topk(lm, data, 0, cfg, progress=False)
    cosine = (truth @ sae.W_dec.T).amax(1)
    chance = (truth @ F.normalize(torch.randn(48, 16, generator=torch.Generator().manual_seed(3)), dim=1).T).amax(1)
    assert cosine.mean() > 0.8 > 0.7 > chance.mean()
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(48), atol=1e-5)
    assert S.quality(sae, data.tensor(0)).fve > 0.75 and history.fve[-1] > history.fve[0]
    assert history.step[-1] == 399 and len(history.step) == len(history.dead) == 41
    again, _ = S.train_topk(lm, data, 0, cfg, progress=False)
    assert torch.allclose(again.W_dec, sae.W_dec, atol=1e-4), "the seed decides"


def test_starts_from_data_even_with_fewer_tokens_than_features():
    sae, sample = make(d_sae=50), batch(30)
    _start_from_data(sae, sample, S.TrainConfig(d_sae=50, encoder_scale=0.1))
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(50), atol=1e-5)
    assert torch.allclose(sae.W_enc, 0.1 * sae.W_dec.T) and torch.allclose(sae.b_dec, sample.mean(0))
    rows = F.normalize(sample - sample.mean(0), dim=1)
    assert bool(((sae.W_dec[:30] @ rows.T).amax(1) > 0.99).all())


def test_learning_rate_rises_and_falls():
    cfg = S.TrainConfig(steps=100, warmup=0.1)
    factors = [_schedule(step, cfg) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and max(factors) == 1.0 and factors[-1] == pytest.approx(1 / 90)
    assert factors.index(1.0) == 9 and factors[10:] == sorted(factors[10:], reverse=True)


def test_live_dictionaries_are_trained_once(tmp_path, monkeypatch, tiny_llama):
    lm = tiny_llama()  # reads the tokenizer from the real cache
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "cache"))
    rows = token_rows(lm, ["some words about nothing much at all"] * 40, n_ctx=16)
    cfg = S.TrainConfig(d_sae=32, k=4, steps=4, batch_size=32)
    first = S.live_dictionaries(lm, rows, (0, 1), cfg, progress=False)
    assert list(first) == [0, 1] and first[1].cfg.hook_name == lm.mlp_output(1) and first[1].cfg.k == 4
    monkeypatch.setattr(S.train, "train_topk", None)  # would raise if it were called again
    second = S.live_dictionaries(lm, rows, (0, 1), cfg, progress=False)
    assert torch.equal(first[1].W_enc, second[1].W_enc)


# ---- files -----------------------------------------------------------------------------------------------
def test_a_dictionary_survives_the_disk(tmp_path):
    sae, x = make(), batch()
    S.save_sae(sae, tmp_path / "new" / "sae")
    loaded = S.load_sae(tmp_path / "new" / "sae")
    assert loaded.cfg == sae.cfg and torch.equal(loaded(x), sae(x))
    assert not any(p.requires_grad for p in loaded.parameters())


def broken_architecture(folder):
    cfg = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(cfg | {"architecture": "magic"}))


def rewrite(folder, change):
    path = folder / "sae_weights.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    path.unlink()
    save_file(tensors, path)


def broken_shape(folder):
    rewrite(folder, lambda tensors: tensors.update(b_enc=torch.zeros(3)))


def missing_tensor(folder):
    rewrite(folder, lambda tensors: tensors.pop("W_dec"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "cfg.json").unlink(), "holds no dictionary that can be read.*needs cfg.json"),
        (lambda f: (f / "sae_weights.safetensors").unlink(), "holds no dictionary"),
        (lambda f: (f / "cfg.json").write_text("{"), "holds no dictionary"),
        (lambda f: (f / "cfg.json").write_text('{"d_in": 3}'), "holds no dictionary"),
        (lambda f: (f / "sae_weights.safetensors").write_bytes(b"no"), "holds no dictionary"),
        (broken_architecture, "Unknown architecture 'magic'; known are topk"),
        (broken_shape, "b_enc is missing or not of the shape"),
        (missing_tensor, "W_dec is missing or not of the shape"),
    ],
)
def test_broken_files_are_named(tmp_path, damage, message):
    S.save_sae(make(), tmp_path)
    damage(tmp_path)
    with pytest.raises(ConceptLabError, match=message) as caught:
        S.load_sae(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(ConceptLabError, match="holds no dictionary"):
        S.load_sae(tmp_path / "nowhere")


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


def test_pool_max():
    values = torch.tensor([[1.0, -5.0], [3.0, -7.0], [2.0, 0.0]])
    found = S.pool_max(values, torch.tensor([2, 2, 0]), 3)
    assert found.tolist() == [[2.0, 0.0], [-torch.inf, -torch.inf], [3.0, -5.0]]


def test_auroc_against_counting_pairs():
    g = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 6, (40, 3), generator=g).float()  # many ties
    labels = torch.rand(40, generator=g) < 0.3
    found = S.auroc(scores, labels)
    for column in range(3):
        wins = [
            (p > n) + 0.5 * (p == n) for p in scores[labels, column].tolist() for n in scores[~labels, column].tolist()
        ]
        assert float(found[column]) == pytest.approx(sum(wins) / len(wins), abs=1e-6)
    assert float(S.auroc(labels.float()[:, None], labels)) == 1.0
    assert float(S.auroc(torch.zeros(40, 1), labels)) == 0.5
    with pytest.raises(ConceptLabError, match="inside and outside"):
        S.auroc(scores, torch.zeros(40, dtype=torch.bool))


def test_best_direction_finds_the_planted_one():
    labels = torch.arange(40) % 4 == 0
    scores = torch.randn(40, 9, generator=torch.Generator().manual_seed(0))
    scores[:, 5] = -labels.float()
    assert S.best_direction(scores, labels, both_signs=True) == (5, -1.0, 1.0)
    index, sign, area = S.best_direction(scores, labels)
    assert index != 5 and sign == 1.0 and area == pytest.approx(float(S.auroc(scores, labels).max()))


def test_auroc_draws():
    g = torch.Generator().manual_seed(0)
    scores, labels, texts = torch.randn(60, generator=g), torch.arange(60) % 3 == 0, torch.arange(60) // 6
    draws = S.auroc_draws(scores, labels, texts, n_resamples=300)
    assert len(draws) == 301 and float(draws[0]) == pytest.approx(float(S.auroc(scores[:, None], labels)), abs=1e-6)
    found = S.draws_interval(draws, 10)
    assert found.low < found.value < found.high and found.n == 10
    assert torch.equal(draws, S.auroc_draws(scores, labels, texts, n_resamples=300)), "the seed decides"
    # a resample by hand: repeat the items of the drawn texts
    picks = torch.randint(10, (300, 10), generator=torch.Generator().manual_seed(0))[0]
    items = torch.cat([(texts == t).nonzero()[:, 0] for t in picks])
    assert float(draws[1]) == pytest.approx(float(S.auroc(scores[items, None], labels[items])), abs=1e-6)
    # a bootstrap over texts is wider than one over items when the items of a text go together
    same = (texts % 2).float() + 0.01 * scores
    wide, narrow = (S.auroc_draws(same, texts % 4 < 2, t)[1:] for t in (texts, None))
    assert wide[~wide.isnan()].std() > narrow[~narrow.isnan()].std()


# ---- exercises -------------------------------------------------------------------------------------------
def solution_batch_topk(scores, k):
    flat = scores.relu().flatten()
    top = flat.topk(k * len(scores))
    return torch.zeros_like(flat).scatter(0, top.indices, top.values).view_as(scores)


def topk_per_row(scores, k):
    top = scores.relu().topk(k, dim=-1)
    return torch.zeros_like(scores).scatter(-1, top.indices, top.values)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (solution_batch_topk, "PASSED"),
        (lambda s, k: s, "nothing was set to zero"),
        (lambda s, k: s.relu(), "relu alone"),
        (topk_per_row, "that is TopK"),
        (lambda s, k: None, "nothing yet"),
        (lambda s, k: s[:, :1], "shape"),
        (lambda s, k: 1 / 0, "ZeroDivisionError"),
        (lambda s, k: "text", "expected numbers"),
    ],
)
def test_check_of_batch_topk(capsys, answer, says):
    from conceptlab.checks.nb02_sparse_autoencoders import check_batch_topk

    check_batch_topk(answer)
    out = capsys.readouterr().out
    assert says in out and ("PASSED" in out) == (says == "PASSED")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda e, b, d: (e * d.norm(dim=1), b * d.norm(dim=1), d / d.norm(dim=1, keepdim=True)), "PASSED"),
        (lambda e, b, d: (e, b, d), "W_dec is unchanged"),
        (lambda e, b, d: (e, b, d / d.norm(dim=1, keepdim=True)), "the norms are gone"),
        (lambda e, b, d: (e * d.norm(dim=1), b, d / d.norm(dim=1, keepdim=True)), "the bias needs the norms"),
        (lambda e, b, d: (e, b, d / d.norm(dim=0)), "columns have norm 1"),
        (lambda e, b, d: (e, b, d / d.norm()), "divided by one number"),
        (lambda e, b, d: d, "return W_enc, b_enc, W_dec"),
        (lambda e, b, d: None, "return W_enc, b_enc, W_dec"),
        (lambda e, b, d: e @ e, "RuntimeError"),
    ],
)
def test_check_of_unit_norm(capsys, answer, says):
    from conceptlab.checks.nb02_sparse_autoencoders import check_unit_norm

    check_unit_norm(answer)
    out = capsys.readouterr().out
    assert says in out and ("PASSED" in out) == (says == "PASSED")


# ---- figures ---------------------------------------------------------------------------------------------
def test_figures_draw(recwarn):
    import matplotlib.pyplot as plt
    import numpy as np

    from conceptlab.evaluation import Interval
    from conceptlab.plots import sae as plots

    line = (["a", " word", "\n", "漢", "א"], [0.0, 2.0, 0.1, 0.0, -1.0], "note")
    long = ([" word"] * 60, [1.0] * 60, "")
    figures = [
        plots.token_heatmap({"neuron 1": [line, long], "silent": [(["a"], [0.0], "")]}, "title"),
        plots.norms_by_layer(np.array([1.0, 50.0]), np.array([2.0, 2.0]), "title"),
        plots.training_curves({"by hand": [0.1, 0.4]}, ("library", 0.5), "title"),
        plots.variance_against_k([8, 16], {"features": [0.2, 0.3], "neurons": [0.1, 0.2]}, "title"),
        plots.class_areas(["x"], {"feature": [Interval(0.7, 0.6, 0.8, 9)]}, "title", split_after=1),
    ]
    for figure in figures:
        figure.canvas.draw()
        plt.close(figure)
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


def test_from_text_to_a_file(tmp_path, tiny_llama):
    lm = tiny_llama()
    rows = token_rows(lm, ["the cat sat on the mat and looked at the moon"] * 30, n_ctx=16)
    data = harvest(lm, rows, (1,), folder=tmp_path / "h", progress=False)
    sae, _ = S.train_topk(lm, data, 1, S.TrainConfig(d_sae=32, k=4, steps=10), progress=False)
    assert sae.cfg.model_name == lm.name and sae.cfg.hook_name == "blocks.1.mlp.hook_out"
    S.save_sae(sae, tmp_path / "s")
    x = data.tensor(1)[:7]
    assert torch.equal(S.load_sae(tmp_path / "s")(x), sae(x))
