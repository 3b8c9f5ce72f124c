"""A dictionary is harvested, spliced, scored and edited at its own place."""

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.data import harvest, token_rows
from conceptlab.erasure import Feature, directional_edit, hand_picked, pisces_edit, signed_edit
from conceptlab.sae import (
    SAEConfig,
    TrainConfig,
    check_editable,
    check_fits,
    make_sae,
    sae_site,
    shared_kind,
    spliced_loss,
    train_sae,
)
from conceptlab.sae.held_out import HeldOut
from sentences import sentences


def at(lm, hook, d_in=None, layer=1):
    name = f"blocks.{layer}.{hook}"
    return make_sae(SAEConfig("topk", d_in or lm.d_model, 24, 4, lm.name, layer, name), 3).requires_grad_(False)


@pytest.mark.parametrize("hook", ["hook_resid_pre", "hook_resid_post", "hook_attn_out", "mlp.hook_in", "mlp.hook_post"])
def test_an_edit_of_the_mlp_refuses_dictionaries_of_other_places(tiny_llama, hook):
    lm = tiny_llama()
    saes, features, signs = {1: at(lm, hook)}, [Feature(1, 3)], {1: torch.ones(lm.d_mlp)}
    picked = lambda model, given, _: hand_picked(model, given, [(1, 3)])  # noqa: E731
    for edit in (pisces_edit, directional_edit, lambda *a: signed_edit(*a, signs), picked):
        with pytest.raises(ConceptLabError, match=r"reads .* but an edit of the MLP needs one of the MLP's output"):
            edit(lm, saes, features)


@pytest.mark.parametrize("hook", ["mlp.hook_out", "hook_mlp_out"])
def test_both_sides_of_the_norm_are_the_mlp_s_output(tiny_llama, hook):
    lm = tiny_llama()
    check_editable(at(lm, hook))
    assert pisces_edit(lm, {1: at(lm, hook)}, [Feature(1, 3)], 0.2, 2.0).changes


def test_one_kind_for_all_dictionaries_of_a_harvest(tiny_llama):
    lm = tiny_llama()
    assert shared_kind({0: at(lm, "hook_mlp_out", layer=0), 1: at(lm, "hook_mlp_out")}) == "mlp_contribution"
    with pytest.raises(ConceptLabError, match="read at different places .layer 0: mlp_output, layer 1: resid_post"):
        shared_kind({0: at(lm, "mlp.hook_out", layer=0), 1: at(lm, "hook_resid_post")})
    with pytest.raises(ConceptLabError, match="nothing to harvest for"):
        shared_kind({})


def test_behind_a_norm_other_activations_are_harvested_and_spliced(tiny_gemma2, tmp_path, monkeypatch):
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path))
    lm = tiny_gemma2(initializer_range=0.3)
    lm.hf.get_submodule("model.layers.1.post_feedforward_layernorm").weight.data.fill_(1.5)
    rows, sae = token_rows(lm, sentences(10, 0), n_ctx=16), at(lm, "hook_mlp_out")
    kind = sae_site(sae)[0]
    before, behind = (harvest(lm, rows, [1], kind=x, progress=False).tensor(1) for x in ("mlp_output", kind))
    assert float((before - behind).norm() / behind.norm()) > 0.2
    zeros = [spliced_loss(lm, rows.ids, 1, lambda x: sae(x.float()), kind=x) for x in ("mlp_output", kind)]
    assert float((zeros[0] - zeros[1]).abs().max()) > 1e-4
    with pytest.raises(ConceptLabError, match="reads mlp_contribution, but mlp_output was harvested"):
        HeldOut(lm, rows, [1], progress=False).measure(sae)


@pytest.mark.parametrize("kind", ["resid_post", "mlp_output", "mlp_contribution", "mlp_input", "attn_contribution"])
def test_a_dictionary_is_named_after_what_was_harvested(tiny_llama, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path))
    lm = tiny_llama()
    data = harvest(lm, token_rows(lm, sentences(10, 0), n_ctx=16), [1], kind=kind, progress=False)
    sae, _ = train_sae(data, TrainConfig(d_sae=24, k=2, steps=2, batch_size=32), lm, 1, progress=False)
    assert sae_site(sae) == (kind, 1)


def test_widths_of_both_sides_are_compared(tiny_llama):
    lm = tiny_llama()
    check_fits(lm, at(lm, "mlp.hook_post", lm.d_mlp))
    with pytest.raises(ConceptLabError, match="width 16, but neurons of tiny-llama has width 32"):
        check_fits(lm, at(lm, "mlp.hook_post"))
