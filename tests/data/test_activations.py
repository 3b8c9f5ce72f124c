"""Harvests: the right numbers from the right tokens, whatever was interrupted."""

import json

import numpy as np
import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.core import files as cache
from conceptlab.data import activations, harvest, token_rows
from conceptlab.data.activations import delete_harvest

TEXTS = [
    f"Text number {i} is about {thing}." for i, thing in enumerate("cats dogs gold Rome Japan tin cells".split() * 6)
]


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama()


@pytest.fixture
def rows(lm):
    return token_rows(lm, TEXTS, n_ctx=12)


def read(found, layer):
    return np.array(found.memmap(layer))


def test_equals_a_direct_forward(lm, rows, tmp_path):
    found = harvest(lm, rows, (1, 0), batch_size=3, folder=tmp_path / "h", progress=False)
    assert found.layers == (0, 1) and found.d_model == 16 and found.kind == "mlp_output"
    for layer in (0, 1):
        direct = lm.capture(rows.ids, [("mlp_output", layer)])["mlp_output", layer]
        wanted = direct[torch.from_numpy(found.row), torch.from_numpy(found.pos)]
        assert torch.allclose(found.tensor(layer), wanted, rtol=2e-3, atol=1e-6)
        assert found.memmap(layer).dtype == np.float16


def test_a_real_model_too(smollm2, tmp_path):
    rows = token_rows(smollm2, TEXTS[:12], n_ctx=32)
    found = harvest(smollm2, rows, (2, 5), folder=tmp_path / "h", progress=False)
    direct = smollm2.capture(rows.ids, [("mlp_output", 5)])["mlp_output", 5]
    wanted = direct[torch.from_numpy(found.row), torch.from_numpy(found.pos)]
    assert float((found.tensor(5) - wanted).norm() / wanted.norm()) < 1e-3
    assert float(found.tensor(5).abs().max()) < 1e4  # float16 does not overflow without position 0


def test_neurons_times_the_down_projection_are_the_output(lm, rows, tmp_path):
    neurons = harvest(lm, rows, (1,), kind="neurons", folder=tmp_path / "n", progress=False)
    outputs = harvest(lm, rows, (1,), folder=tmp_path / "o", progress=False)
    assert neurons.d_model == lm.d_mlp
    found, wanted = neurons.tensor(1) @ lm.down_proj(1), outputs.tensor(1)
    assert float((found - wanted).norm() / wanted.norm()) < 5e-3


def test_position_0_and_separators_are_left_out(lm, rows, tmp_path):
    found = harvest(lm, rows, (0,), folder=tmp_path / "h", progress=False)
    assert found.pos.min() == 1
    expected = int((rows.docs[:, 1:] >= 0).sum())
    assert found.n_tokens == expected == len(found.tensor(0))
    assert lm.tokenizer.eos_token_id not in found.token_ids().tolist()


def test_every_token_knows_its_text(lm, rows, tmp_path):
    found = harvest(lm, rows, (0,), folder=tmp_path / "h", progress=False)
    assert torch.equal(found.token_ids(), rows.ids[found.row, found.pos])
    for index in range(0, found.n_tokens, 7):
        text = int(found.docs()[index])
        assert lm.tokenizer.decode([int(found.token_ids()[index])]).strip() in TEXTS[text]
        window, place = found.context(index, width=4)
        assert window[place] == found.token_ids()[index] and place <= 4 and len(window) <= 4 + 2 + 1


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_goes_on_after_an_interrupt(lm, rows, tmp_path, monkeypatch, stop_after):
    whole = harvest(lm, rows, (0, 1), batch_size=2, folder=tmp_path / "whole", progress=False)
    calls, real = [], lm.capture

    def failing(ids, sites):
        if len(calls) == stop_after:
            raise Interrupted
        calls.append(len(ids))
        return real(ids, sites)

    monkeypatch.setattr(lm, "capture", failing)
    with pytest.raises(Interrupted):
        harvest(lm, rows, (0, 1), batch_size=2, folder=tmp_path / "part", progress=False)
    done = []
    monkeypatch.setattr(lm, "capture", lambda ids, sites: done.append(len(ids)) or real(ids, sites))
    found = harvest(lm, rows, (0, 1), batch_size=2, folder=tmp_path / "part", progress=False)
    assert sum(calls) + sum(done) == len(rows), "no batch is done twice"
    for layer in (0, 1):
        assert np.array_equal(read(found, layer), read(whole, layer))


def test_a_finished_harvest_is_found_again(lm, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path))
    first = harvest(lm, rows, (0,), progress=False)
    assert json.loads((first.folder / "state.json").read_text())["model"] == lm.name
    real = lm.capture
    monkeypatch.setattr(lm, "capture", None)
    again = harvest(lm, rows, (0,), progress=False)
    assert again.folder == first.folder and np.array_equal(read(again, 0), read(first, 0))
    monkeypatch.setattr(lm, "capture", real)
    other = harvest(lm, rows, (1,), progress=False)
    assert other.folder != first.folder
    delete_harvest(first)
    assert not first.folder.exists() and other.folder.exists()


def test_a_harvest_of_more_layers_serves(lm, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path))
    both = harvest(lm, rows, (0, 1), progress=False)
    monkeypatch.setattr(lm, "capture", None)
    one = harvest(lm, rows, (1,), progress=False)
    assert one.folder == both.folder and one.layers == (1,) and np.array_equal(read(one, 1), read(both, 1))
    (both.folder / "state.json").write_text(json.dumps({"rows": len(rows) - 1}))
    with pytest.raises(TypeError):  # an unfinished one does not
        harvest(lm, rows, (1,), progress=False)


def test_refuses_to_fill_the_disk(lm, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000})())
    with pytest.raises(ConceptLabError, match="Harvesting .* tokens of 2 layers needs .* make room"):
        harvest(lm, rows, (0, 1), folder=tmp_path / "h", progress=False)
    assert not list((tmp_path / "h").glob("*.f16"))


def test_layers_that_do_not_exist(lm, rows, tmp_path):
    with pytest.raises(ConceptLabError, match="layers 0 to 1; layer 2 does not exist"):
        harvest(lm, rows, (2,), progress=False)
    found = harvest(lm, rows, (0,), folder=tmp_path / "h", progress=False)
    with pytest.raises(ConceptLabError, match=r"Layer 1 was not harvested; this harvest holds layers \[0\]"):
        found.tensor(1)


def test_batches_are_seeded_and_use_every_token_once(lm, rows, tmp_path):
    found = harvest(lm, rows, (0,), folder=tmp_path / "h", progress=False)
    size = found.n_tokens // 4
    first = list(found.batches(0, size, seed=1, steps=4))
    again = list(found.batches(0, size, seed=1, steps=4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], next(found.batches(0, size, seed=2)))
    known = {row.tobytes() for row in found.tensor(0).numpy()}
    drawn = [row.tobytes() for x in first for row in x.numpy()]
    assert len(drawn) == 4 * size and set(drawn) <= known
    assert len(list(found.batches(0, size, steps=11))) == 11, "starts over when the data is used up"
    assert len(next(found.batches(0, 10**6))) == found.n_tokens, "a batch is at most the whole harvest"
    assert first[0].dtype == torch.float32


def test_the_key_depends_on_all_that_matters(lm, rows):
    def key(layers=(0,), kind="mlp_output", text=rows):
        return activations._key(lm, text, layers, kind)

    changed = type(rows)(rows.ids.flip(0), rows.docs)
    assert len({key(), key(layers=(1,)), key(kind="neurons"), key(text=changed)}) == 4
