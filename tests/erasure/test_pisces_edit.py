"""Variants of the edit: weaker early layers, signed ablation, dictionaries that read behind Gemma's norm."""

import pytest
import torch

from conceptlab.erasure import PUBLISHED, Feature, directional_edit, hand_picked, pisces_edit, signed_edit
from conceptlab.sae import JumpReLUSAE, SAEConfig
from dictionaries import encode_edit_decode, make_sae


@pytest.fixture
def tiny(tiny_llama):
    """A random model in float64 with a dictionary for each of its two layers."""
    lm = tiny_llama()
    lm.hf.double()
    return lm, {layer: make_sae(lm, layer, dtype=torch.float64) for layer in (0, 1)}


def test_layers_below_the_ramp_are_edited_more_weakly(tiny):
    lm, saes = tiny
    features = [Feature(0, 3), Feature(1, 5)]
    full, ramped = (pisces_edit(lm, saes, features, 0.2, 2.0, ramp=ramp) for ramp in (0, 2))
    weak = pisces_edit(lm, saes, features[:1], 0.2, 0.2)  # a tenth of mu at layer 0, all of it at layer ramp - 1
    names = [lm.down_proj_name(layer) for layer in (0, 1)]
    assert torch.allclose(ramped.changes[names[0]].dense(), weak.changes[names[0]].dense())
    assert torch.equal(ramped.changes[names[1]].dense(), full.changes[names[1]].dense())
    half = pisces_edit(lm, saes, features, 0.2, 2.0, ramp=3).changes[names[1]].dense()  # 0.1 + 0.9 / 2
    want = pisces_edit(lm, saes, features[1:], 0.2, 1.1).changes[names[1]].dense()
    assert torch.allclose(half, want)


def test_signed_edit_changes_only_rows_that_write_the_concept(tiny):
    lm, saes = tiny
    sigma = torch.tensor([1.0, -1.0, 0.0, 1.0]).repeat(lm.d_mlp // 4).double()
    rows, d = lm.down_proj(0).clone(), saes[0].W_dec[7]
    with signed_edit(lm, saes, [Feature(0, 7, sign=-1)], {0: sigma}, 1.0).applied(lm):
        after = lm.down_proj(0).clone()
    for j, (old, new) in enumerate(zip(rows, after, strict=True)):
        writes = float(-sigma[j] * (old @ d)) > 0
        want = old - (old @ d) * d if writes else old
        assert torch.allclose(new, want) and (writes or torch.equal(new, old))
    assert not torch.equal(rows, after)


@pytest.fixture
def gemma2(tiny_gemma2):
    """A random Gemma-2 in float64, whose norms have gains of their own, with a JumpReLU dictionary behind each norm."""
    lm = tiny_gemma2()
    lm.hf.double()
    saes = {}
    for layer in (0, 1):
        generator = torch.Generator().manual_seed(layer)
        lm.hf.get_submodule(f"model.layers.{layer}.post_feedforward_layernorm").weight.copy_(
            torch.rand(16, generator=generator).double() * 3 - 0.5
        )
        hook = f"blocks.{layer}.hook_mlp_out"
        sae = JumpReLUSAE(SAEConfig("jumprelu", 16, 24, 4, lm.name, layer, hook), layer).double().requires_grad_(False)
        sae.W_enc += 0.3 * torch.randn(sae.W_enc.shape, generator=generator).double()
        saes[layer] = sae
    return lm, saes


def test_behind_a_norm_the_rows_are_edited_as_the_dictionary_sees_them(gemma2):
    """The published procedure on the rows times the norm's gain; on raw rows, as in the authors' code, it differs."""
    lm, saes = gemma2
    features = [Feature(1, 3), Feature(1, 5, sign=-1)]
    seen = lm.value_vectors(1).clone()
    assert lm.post_mlp_gain(1).std() > 0.5
    want = encode_edit_decode(saes[1], seen, features, 0.3, 2.0)
    with pisces_edit(lm, saes, features, 0.3, 2.0).applied(lm):
        assert (lm.value_vectors(1) - want).abs().max() < 1e-5 * seen.abs().max()  # the gain is measured in float32
    with pisces_edit(lm, saes, features, 0.3, 2.0, raw_side=True).applied(lm):
        assert (lm.value_vectors(1) - want).norm() > 0.2 * (want - seen).norm()
    d = saes[1].W_dec[3]
    with directional_edit(lm, saes, features[:1], 1.0).applied(lm):
        assert (lm.value_vectors(1) @ d).abs().max() < 1e-5 * (seen @ d).abs().max()
    sigma = {1: torch.ones(32).double()}
    with signed_edit(lm, saes, features[:1], sigma, 1.0).applied(lm):
        assert (lm.value_vectors(1) @ d).max() < 1e-5 * (seen @ d).abs().max()


def test_the_published_setting_on_a_gemma2(gemma2, tmp_path):
    from transformers import AutoModelForCausalLM

    lm, saes = gemma2
    published = PUBLISHED["gemma-2-2b-it", "harry_potter"]
    places = [(f.layer % 2, f.index % 24, f.sign) for f in published.features]
    features = hand_picked(lm, saes, places)
    edit = pisces_edit(lm, saes, features, published.tau, published.mu, ramp=published.ramp)
    before = lm.down_proj(0).clone()
    edit.export(lm, tmp_path / "edited")
    assert torch.equal(lm.down_proj(0), before)
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "edited", dtype=torch.float64)
    name = lm.down_proj_name(0)
    assert torch.allclose(other.get_parameter(name), lm.hf.get_parameter(name) + edit.changes[name].dense())
