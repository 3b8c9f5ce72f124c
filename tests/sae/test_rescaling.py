"""`W_dec * c, W_enc / c, b_enc / c` is the same dictionary: every result must be the same."""

from dataclasses import replace

import pytest
import torch

from conceptlab.erasure import Feature, directional_edit, pisces_edit, signed_edit
from conceptlab.sae import ARCHITECTURES, SAEConfig, load_sae, make_sae, save_sae

D_SAE = 24
FREE = ("relu", "gated", "jumprelu")  # each feature has its own scale


def dictionary(lm, kind, seed=0):
    sae = make_sae(SAEConfig(kind, lm.d_model, D_SAE, 5, lm.name, 1, lm.mlp_output(1)), seed)
    g = torch.Generator().manual_seed(seed + 7)
    with torch.no_grad():
        sae.W_enc.add_(0.3 * torch.randn(sae.W_enc.shape, generator=g))
        for name in (*sae.feature_vectors, "b_dec"):
            p = getattr(sae, name)
            p.copy_(0.02 * torch.randn(p.shape, generator=g))
        if kind == "batchtopk":
            sae.threshold.fill_(0.05)
        if kind == "jumprelu":
            sae.log_threshold.copy_(torch.rand(D_SAE, generator=g) - 4)
    return sae.requires_grad_(False)


@torch.no_grad()
def rescaled(sae, by):
    """The same function with other norms: features divided, decoder rows multiplied by `by`."""
    other = make_sae(sae.cfg).requires_grad_(False)
    other.load_state_dict(sae.state_dict())
    other.W_dec *= by[:, None]
    other.W_enc /= by
    for name in sae.feature_vectors:
        if name.startswith("b_"):
            getattr(other, name).div_(by)
    if hasattr(other, "log_threshold"):
        other.log_threshold -= by.log()
    if sae.cfg.architecture == "batchtopk":
        other.threshold /= by[0]
    return other


def scales(kind):
    """One factor for all features where they are compared with each other, else one for each."""
    each = 0.2 + 4 * torch.rand(D_SAE, generator=torch.Generator().manual_seed(3))
    return {"all": torch.full((D_SAE,), 3.0)} | ({"each": each} if kind in FREE else {})


CASES = [(kind, name) for kind in ARCHITECTURES for name in scales(kind)]


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case))
def pair(request, tiny_llama):
    kind, name = request.param
    lm = tiny_llama(initializer_range=0.3)
    sae = dictionary(lm, kind)
    other = rescaled(sae, scales(kind)[name])
    x = torch.randn(200, lm.d_model, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(other(x), sae(x), atol=1e-5, rtol=1e-4)
    assert float((other.W_dec.norm(dim=1) - 1).abs().max()) > 0.5
    return lm, sae, other, x


def same_edit(a, b):
    for name, change in a.changes.items():
        dense = change.dense()
        assert float(dense.abs().max()) > 1e-4, "an edit of nothing shows nothing"
        torch.testing.assert_close(b.changes[name].dense(), dense, atol=1e-5, rtol=1e-3)


def test_edits_do_not_depend_on_free_scales(pair):
    lm, sae, other, _ = pair
    features = [Feature(1, 3), Feature(1, 11, -1), Feature(1, 20)]
    sigma = {1: torch.tensor([1.0, -1.0]).repeat(lm.d_mlp // 2)}
    for edit in (
        lambda s: pisces_edit(lm, {1: s}, features, 0.2, 2.0),
        lambda s: pisces_edit(lm, {1: s}, features, 0.2, 2.0, sigma),
        lambda s: directional_edit(lm, {1: s}, features, 2.0),
        lambda s: signed_edit(lm, {1: s}, features, sigma, 1.0),
    ):
        same_edit(edit(sae), edit(other))


def test_what_is_found_does_not_depend_on_free_scales(pair):
    lm, sae, other, x = pair
    close = dict(atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(other.residual_directions(lm), sae.residual_directions(lm), **close)
    torch.testing.assert_close(other.directions(), sae.directions(), **close)
    torch.testing.assert_close(other.strengths(x), sae.strengths(x), **close)
    torch.testing.assert_close(other.detectors(), sae.detectors(), **close)
    some = torch.tensor([4, 0, 9])
    torch.testing.assert_close(other.strengths(x, some), sae.strengths(x)[:, some], **close)


def test_loading_folds_norms_where_that_is_the_same_function(pair, tmp_path):
    _, sae, other, x = pair
    save_sae(other, tmp_path)
    loaded = load_sae(tmp_path)
    torch.testing.assert_close(loaded(x), sae(x), atol=1e-5, rtol=1e-4)
    norms = loaded.W_dec.norm(dim=1)
    if sae.cfg.architecture in FREE:
        assert torch.allclose(norms, torch.ones(D_SAE), atol=1e-5)
        torch.testing.assert_close(loaded.encode(x), sae.strengths(x), atol=1e-5, rtol=1e-4)
    else:
        assert torch.allclose(norms, torch.full((D_SAE,), 3.0), atol=1e-4), "its features compete as they are scored"


def test_the_gate_of_a_gated_dictionary_has_a_scale_of_its_own(tiny_llama):
    lm = tiny_llama(initializer_range=0.3)
    sae = dictionary(lm, "gated")
    other = make_sae(sae.cfg).requires_grad_(False)
    other.load_state_dict(sae.state_dict())
    other.W_enc *= 5
    other.b_gate *= 5
    other.r_mag -= torch.tensor(5.0).log()
    features = [Feature(1, 3), Feature(1, 11)]
    same_edit(pisces_edit(lm, {1: sae}, features, 0.2, 2.0), pisces_edit(lm, {1: other}, features, 0.2, 2.0))


def test_a_decoder_row_of_zeros_stays_one(tiny_llama):
    lm = tiny_llama()
    for kind in FREE:
        sae = dictionary(lm, kind)
        sae.W_dec[2] = 0
        x = torch.randn(50, lm.d_model, generator=torch.Generator().manual_seed(1))
        before = sae(x)
        sae.fold_norms()
        assert bool(torch.isfinite(sae.W_dec).all()) and not bool(sae.W_dec[2].any())
        torch.testing.assert_close(sae(x), before, atol=1e-5, rtol=1e-5)
        assert replace(sae.cfg) == sae.cfg
