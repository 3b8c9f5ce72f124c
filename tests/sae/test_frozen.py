"""Dictionaries with a frozen decoder, dictionaries kept in the cache, and those of other seeds."""

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.data import token_rows
from conceptlab.erasure import shipped_dictionaries
from conceptlab.sae import (
    ARCHITECTURES,
    TrainConfig,
    cached_dictionaries,
    command,
    load_card,
    load_shipped,
    saes_folder,
    shipped,
    train_sae,
)
from sentences import sentences


def activations(n=400, d=8):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(3)) + 1.0


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_a_frozen_decoder_stays_as_it_was_drawn_and_the_encoder_learns(architecture, tmp_path):
    cfg = TrainConfig(
        d_sae=16, k=3, steps=40, batch_size=64, architecture=architecture, freeze_decoder=True, checkpoint_every=15
    )
    sae, history = train_sae(activations(), cfg, progress=False)
    drawn = torch.randn(16, 8, generator=torch.Generator().manual_seed(cfg.seed))
    drawn = drawn / drawn.norm(dim=1, keepdim=True)
    if architecture in ("topk", "batchtopk"):
        assert torch.equal(sae.W_dec, drawn), "not a bit of it moved"
    else:  # their norms are made 1 once more at the end
        torch.testing.assert_close(sae.W_dec.detach(), drawn, rtol=1e-6, atol=1e-7)
    direction = torch.nn.functional.cosine_similarity(sae.W_enc, sae.W_dec.T, dim=0)
    assert float(direction.min()) < 0.99, "the encoder is not the decoder's transpose any more"
    assert history.fve[-1] > history.fve[0]
    again, _ = train_sae(activations(), cfg, progress=False, checkpoint=tmp_path / "state")
    for name, x in sae.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], x, msg=name)


def test_a_frozen_decoder_cannot_be_restarted():
    with pytest.raises(ConceptLabError, match="A frozen decoder is neither restarted nor scaled"):
        train_sae(activations(), TrainConfig(d_sae=16, k=3, freeze_decoder=True, resamples=True), progress=False)


def test_dictionaries_in_the_cache_are_found_by_what_they_depend_on(tiny_llama, tmp_path, monkeypatch):
    lm, other = tiny_llama(), tiny_llama(seed=1)  # of the same name
    rows = token_rows(lm, sentences(40, 0), n_ctx=32)
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path))
    trained, real = [], command.train_sae
    monkeypatch.setattr(command, "train_sae", lambda *a, **k: trained.append(a[3]) or real(*a, **k))
    cfg = TrainConfig(d_sae=32, k=4, steps=5, batch_size=32, architecture="batchtopk", freeze_decoder=True)
    first = cached_dictionaries(lm, rows, [1], cfg)
    both = cached_dictionaries(lm, rows, [1, 0], cfg)
    assert trained == [1, 0] and list(both) == [1, 0] and both[0].cfg.hook_layer == 0
    assert torch.equal(first[1].W_enc, both[1].W_enc)
    cached_dictionaries(other, rows, [1], cfg)
    assert trained == [1, 0, 1]


def test_dictionaries_of_another_seed_lie_in_the_cache(built, monkeypatch):
    lm, _ = built
    assert saes_folder(0).name == "saes" and saes_folder(1).name == "seed_1"
    with pytest.raises(ConceptLabError, match="no dictionaries of seed 1 for tiny-llama; run `make saes SEED=1`"):
        shipped_dictionaries(lm, seed=1)
    (folder,) = shipped.build_shipped(lm, (1,), progress=False, seed=1)
    assert folder.is_relative_to(saes_folder(1)) and load_card(lm.name, 1, saes_folder(1))["recipe"]["seed"] == 1
    found = shipped_dictionaries(lm, seed=1)
    assert list(found) == [1] and torch.equal(found[1].W_dec, load_shipped(lm, 1, saes_folder(1)).W_dec)
