"""The shipped dictionaries: built, resumed, measured, read, and what is said when one is not there."""

import json
from dataclasses import replace

import pytest
import torch

from conceptlab import sae as S
from conceptlab.core import ConceptLabError
from conceptlab.data import harvest, selections
from conceptlab.sae import command, save_sae, shipped
from conceptlab.sae.held_out import fve_at
from sentences import sentences


def with_k(sae, k):
    """The same weights with another number of active features per token."""
    other = S.TopKSAE(replace(sae.cfg, k=k)).requires_grad_(False)
    other.load_state_dict(sae.state_dict(), assign=True)
    return other


def test_building_writes_dictionary_and_card_and_is_done_once(built, monkeypatch):
    lm, build = built
    (folder,) = build((0,))
    assert folder.parts[-2:] == ("tiny-llama", "layer_00")
    assert sorted(p.name for p in folder.iterdir()) == ["card.json", "cfg.json", "sae_weights.safetensors"]
    before = (folder / "sae_weights.safetensors").stat().st_mtime_ns
    calls, train = [], command.train_sae
    monkeypatch.setattr(command, "train_sae", lambda *a, **k: calls.append(a[3]) or train(*a, **k))
    assert [f.name for f in build()] == ["layer_00", "layer_01"]
    assert calls == [1] and (folder / "sae_weights.safetensors").stat().st_mtime_ns == before


def test_the_card_says_what_the_files_do(built, tmp_path):
    lm, build = built
    build((1,))
    card, sae = shipped.load_card("tiny-llama", 1, tmp_path / "saes"), shipped.load_shipped(lm, 1, tmp_path / "saes")
    rows = shipped.token_rows(lm, sentences(12, 1), n_ctx=32)
    x = harvest(lm, rows, (1,), progress=False).tensor(1)
    found, told = S.quality(sae, x), card["held_out"]
    assert told["tokens"] == len(x) and told["l0"] == pytest.approx(found.l0, abs=0.01)
    assert told["fve"] == pytest.approx(found.fve, abs=1e-4)
    assert told["dead_share"] == pytest.approx(found.dead, abs=1e-4)
    assert told["fve_at_k"]["16"] == pytest.approx(S.quality(with_k(sae, 16), x).fve, abs=1e-4)
    assert list(told["fve_at_k"]) == ["16", "32", "64"]  # there are 64 features
    changes = (None, torch.zeros_like, lambda a: sae(a))
    clean, zero, spliced = (S.spliced_loss(lm, rows.ids[:64], 1, f).double() for f in changes)
    expected = float((zero.mean() - spliced.mean()) / (zero.mean() - clean.mean()))
    assert told["ce_recovered"]["value"] == pytest.approx(expected, abs=1e-3)
    assert abs(card["storage_loss"]["fve"]) < 0.02
    assert card["recipe"]["storage"] == "int8" and card["recipe"]["seed"] == 0 and card["tokens_trained_on"] == 30 * 64


def test_an_interrupted_build_leaves_nothing_half_done_and_goes_on(built, monkeypatch, tmp_path):
    _, build = built

    def fail(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command.HeldOut, "measure", fail)
        with pytest.raises(KeyboardInterrupt):
            build((0,))
    assert not list((tmp_path / "saes").rglob("*.json")) and not list((tmp_path / "saes").rglob(".layer*"))
    (state,) = (tmp_path / "cache" / "training").iterdir()
    monkeypatch.setattr("conceptlab.sae.train._Run.update", fail)  # all steps are done: not one is taken again
    build((0,))
    assert not state.exists()


def test_shipped_layers_are_those_on_disk(tmp_path, tiny_llama):
    lm = tiny_llama()
    assert shipped.shipped_layers("tiny-llama", tmp_path) == ()
    with pytest.raises(ConceptLabError, match="No dictionary of tiny-llama, layer 1, is shipped; train one"):
        shipped.load_shipped(lm, 1, tmp_path)
    sae = S.TopKSAE(S.SAEConfig("topk", 16, 32, 4, "tiny-llama", 1, lm.mlp_output(1)))
    save_sae(sae, tmp_path / "tiny-llama" / "layer_01")
    assert shipped.shipped_layers("tiny-llama", tmp_path) == (1,)
    assert torch.equal(shipped.load_shipped(lm, -1, tmp_path).W_dec, sae.W_dec)
    with pytest.raises(ConceptLabError, match="layer 0, is shipped; there are layers 1"):
        shipped.load_shipped(lm, 0, tmp_path)
    with pytest.raises(ConceptLabError, match="card.json cannot be read .FileNotFoundError.; restore it"):
        shipped.load_card("tiny-llama", 1, tmp_path)
    with pytest.raises(ConceptLabError, match="No dictionaries of tiny-llama ship; train some with"):
        shipped.build_shipped(lm)
    (tmp_path / "tiny-llama").rename(tmp_path / "gemma3-270m")
    assert shipped.shipped_layers("google/gemma-3-270m-it", tmp_path) == (1,)
    with pytest.raises(ConceptLabError, match="of tiny-llama, the model is gemma3-270m"):
        lm.name = "gemma3-270m"
        shipped.load_shipped(lm, 1, tmp_path)


def test_share_of_variance_at_other_k_is_that_of_the_dictionary_with_that_k():
    g = torch.Generator().manual_seed(0)
    sae = S.TopKSAE(S.SAEConfig("topk", 12, 40, 4, "m", 0, "h")).requires_grad_(False)
    x = torch.randn(300, 12, generator=g)
    found = fve_at(sae, x, (1, 8, 40, 128), batch_size=128)
    assert list(found) == [1, 8, 40]  # no more than there are features
    for k, value in found.items():
        assert value == pytest.approx(S.quality(with_k(sae, k), x).fve, abs=1e-5)


def test_share_of_variance_at_other_k_of_a_batch_dictionary_is_that_of_its_threshold():
    g = torch.Generator().manual_seed(0)
    sae = S.BatchTopKSAE(S.SAEConfig("batchtopk", 12, 40, 4, "m", 0, "h")).requires_grad_(False)
    x = torch.randn(300, 12, generator=g)
    found = fve_at(sae, x, (2, 8), batch_size=300)
    for k, value in found.items():
        sae.threshold.copy_(sae.pre_activations(x).flatten().topk(k * 300 + 1).values[-1])
        quality = S.quality(sae, x)
        assert value == pytest.approx(quality.fve, abs=1e-5) and quality.l0 == pytest.approx(k)


def test_the_chosen_layers_exist_and_are_candidates():
    for model, layers in shipped.SHIPPED.items():
        assert len(layers) >= 6 and set(layers) <= set(shipped.CANDIDATES[model])


def test_training_and_held_out_texts_are_apart(monkeypatch):
    monkeypatch.setattr(selections, "N_ENWIK8", 50)
    monkeypatch.setattr(selections, "enwik8_paragraphs", lambda: iter(f"paragraph {i}" for i in range(1_000)))
    train, held_out = selections.mixture()
    assert not set(train) & set(held_out) and len(held_out) == sum(selections.HELD_OUT.values())
    assert held_out[: selections.HELD_OUT["leads"]] == selections.held_out_leads()
    more, same = selections.mixture(more_enwik8=200)
    assert same == held_out and more[: len(train)] == train and len(more) == len(train) + 200
    assert not set(more) & set(held_out)


def test_cards_of_the_repository_meet_what_the_course_says():
    for model in shipped.SHIPPED:
        for layer in shipped.shipped_layers(model):
            card = shipped.load_card(model, layer)
            assert card["layer"] == layer and card["recipe"]["model"] == model
            assert json.dumps(card).isascii() and abs(card["storage_loss"]["fve"]) < 0.005
