"""Harvests: the right numbers from the right tokens, whatever was interrupted."""

import inspect
import json

import numpy as np
import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.core import files as cache
from conceptlab.data import Harvest, TokenRows, activations, harvest, token_rows
from conceptlab.data.activations import harvest_key
from conceptlab.edits import Dense, WeightEdit

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


def test_a_harvest_of_more_layers_serves(lm, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path))
    both = harvest(lm, rows, (0, 1), progress=False)
    monkeypatch.setattr(lm, "capture", None)
    one = harvest(lm, rows, (1,), progress=False)
    assert one.folder == both.folder and one.layers == (1,) and np.array_equal(read(one, 1), read(both, 1))
    (both.folder / "state.json").unlink()
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


# ---- identity --------------------------------------------------------------------------------------------
def test_the_key_depends_on_all_that_matters_and_no_name(lm, rows, tiny_llama):
    flipped, masked = TokenRows(rows.ids.flip(0), rows.docs.flip(0)), TokenRows(rows.ids, rows.docs.clone())
    masked.docs[0, 3] = -1
    other = tiny_llama(seed=1)
    keys = [harvest_key(lm, r, "mlp_output") for r in (rows, flipped, masked)]
    keys += [harvest_key(lm, rows, "neurons"), harvest_key(other, rows, "mlp_output")]
    assert len(set(keys)) == 5
    twin = tiny_llama()
    twin.name, twin.path = "another name", "/elsewhere"
    assert harvest_key(twin, rows, "mlp_output") == keys[0]


def edit_of(lm):
    noise = torch.randn(lm.d_model, lm.d_mlp, generator=torch.Generator().manual_seed(0))
    return WeightEdit(lm.name, {lm.down_proj_name(0): Dense(noise)})


@pytest.mark.parametrize("inside_first", [False, True])
def test_inside_an_edit_it_is_another_harvest(lm, rows, tmp_path, monkeypatch, inside_first):
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path))
    edit, found = edit_of(lm), {}
    for inside in (inside_first, not inside_first):
        if inside:
            with edit.applied(lm):
                found[inside] = harvest(lm, rows, (1,), progress=False)
        else:
            found[inside] = harvest(lm, rows, (1,), progress=False)
    place = (torch.from_numpy(found[True].row), torch.from_numpy(found[True].pos))
    original = lm.capture(rows.ids, [("mlp_output", 1)])["mlp_output", 1][place]
    with edit.applied(lm):
        edited = lm.capture(rows.ids, [("mlp_output", 1)])["mlp_output", 1][place]
    assert not torch.allclose(original, edited, rtol=0.01)
    for data, wanted in ((found[False], original), (found[True], edited)):
        assert torch.allclose(data.tensor(1), wanted, rtol=2e-3, atol=1e-5)
    assert found[False].fingerprint() != found[True].fingerprint()
    assert found[False].fingerprint() == harvest(lm, rows, (1,), progress=False).fingerprint()


def test_a_function_on_the_model_is_not_in_its_weights(lm, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path))
    with lm.intervene({("mlp_output", 0): lambda x: x * 0}):
        with pytest.raises(ConceptLabError, match="Functions are on the model"):
            harvest(lm, rows, (1,), progress=False)
        assert harvest(lm, rows, (0,), folder=tmp_path / "own", progress=False).tensor(0).abs().max() == 0
    assert harvest(lm, rows, (0,), progress=False).tensor(0).abs().max() > 0


def test_a_folder_of_another_harvest_is_refused(lm, rows, tmp_path, tiny_llama):
    first = harvest(lm, rows, (0,), folder=tmp_path / "h", progress=False)
    before = read(first, 0)
    for model, text, kind in ((tiny_llama(seed=1), rows, "mlp_output"), (lm, rows, "neurons"),
                              (lm, TokenRows(rows.ids[:-1], rows.docs[:-1]), "mlp_output")):  # fmt: skip
        with pytest.raises(ConceptLabError, match="holds the harvest of other weights, rows or kind"):
            harvest(model, text, (0,), kind=kind, folder=tmp_path / "h", progress=False)
    assert np.array_equal(read(first, 0), before)


def test_a_harvest_of_other_making_has_a_fingerprint_too(lm, rows, tmp_path):
    made = harvest(lm, rows, (0,), folder=tmp_path / "h", progress=False)
    by_hand = Harvest(made.folder, rows, (0,), made.row, made.pos, made.d_model, made.kind)
    first = by_hand.fingerprint()
    assert first == by_hand.fingerprint() and len(first) == 16
    data = np.memmap(made.folder / "layer_00.f16", np.float16, "r+")
    data[5] += 1
    data.flush()
    assert by_hand.fingerprint() != first


# ---- what lies on the disk -------------------------------------------------------------------------------
def flip(path, place):
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)


def damage_gone(folder):
    (folder / "layer_01.f16").unlink()


def damage_short(folder):
    path = folder / "layer_01.f16"
    path.write_bytes(path.read_bytes()[:-100])


def damage_long(folder):
    path = folder / "layer_01.f16"
    path.write_bytes(path.read_bytes() + b"more")


def damage_zeros(folder):
    path = folder / "layer_00.f16"
    path.write_bytes(bytes(path.stat().st_size))


def damage_one_bit(folder):
    flip(folder / "layer_01.f16", 1_001)


def damage_empty(folder):
    (folder / "layer_00.f16").write_bytes(b"")


def damage_journal_torn(folder):
    path = next(folder.glob("rows_*.jsonl"))
    path.write_bytes(path.read_bytes()[:-7])


def damage_journal_gone(folder):
    next(folder.glob("rows_*.jsonl")).unlink()


def damage_journal_nonsense(folder):
    next(folder.glob("rows_*.jsonl")).write_bytes(
        b'\xff\x00[1, 2]\n{"rows": 3}\n{"key": 1, "rows": [5, 2], "sums": {}}\n'
    )


def damage_state(folder):
    (folder / "state.json").write_text('{"rows": ')


DAMAGES = [value for name, value in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_what_is_damaged_is_done_again(lm, rows, tmp_path, damage):
    folder = tmp_path / "h"
    whole = {x: read(harvest(lm, rows, (0, 1), batch_size=3, folder=folder, progress=False), x) for x in (0, 1)}
    damage(folder)
    again = harvest(lm, rows, (0, 1), batch_size=2, folder=folder, progress=False)
    for layer in (0, 1):
        assert np.array_equal(read(again, layer), whole[layer])
    assert json.loads((folder / "state.json").read_text())["rows"] == len(rows)


def test_only_what_is_damaged_is_done_again(lm, rows, tmp_path, monkeypatch):
    folder = tmp_path / "h"
    found = harvest(lm, rows, (0, 1), batch_size=2, folder=folder, progress=False)
    place = int(np.searchsorted(found.row, 4)) * 2 * found.d_model  # in the third batch
    flip(folder / "layer_01.f16", place)
    done, real = [], lm.capture
    monkeypatch.setattr(lm, "capture", lambda ids, sites: done.append(ids) or real(ids, sites))
    harvest(lm, rows, (0, 1), batch_size=2, folder=folder, progress=False)
    assert len(done) == 1 and torch.equal(done[0], rows.ids[4:6])


def test_an_interrupted_harvest_without_its_data_begins_again(lm, rows, tmp_path, monkeypatch):
    whole = harvest(lm, rows, (0, 1), folder=tmp_path / "whole", progress=False)
    real, calls = lm.capture, []

    def failing(ids, sites):
        calls.append(1)
        if len(calls) > 3:
            raise Interrupted
        return real(ids, sites)

    monkeypatch.setattr(lm, "capture", failing)
    with pytest.raises(Interrupted):
        harvest(lm, rows, (0, 1), batch_size=1, folder=tmp_path / "part", progress=False)
    monkeypatch.setattr(lm, "capture", real)
    assert not (tmp_path / "part" / "state.json").exists()
    (tmp_path / "part" / "layer_00.f16").unlink()
    found = harvest(lm, rows, (0, 1), folder=tmp_path / "part", progress=False)
    assert all(np.array_equal(read(found, x), read(whole, x)) for x in (0, 1))


def test_a_file_that_went_away_is_one_sentence(lm, rows, tmp_path):
    found = harvest(lm, rows, (0,), folder=tmp_path / "h", progress=False)
    (found.folder / "layer_00.f16").unlink()
    with pytest.raises(ConceptLabError, match="is missing or not of .* bytes; call harvest again"):
        found.tensor(0)


@pytest.mark.parametrize("number", ["ENOSPC", "EDQUOT", "EIO"])
@pytest.mark.parametrize("where", ["reserve", "write_at", "add"])
def test_a_disk_that_fills_up_is_one_sentence(lm, rows, tmp_path, monkeypatch, where, number):
    import errno
    import os

    from conceptlab.data import harvest_files

    def full(*_):
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    with monkeypatch.context() as patch:
        if where == "add":
            patch.setattr(harvest_files.HarvestJournal, "add", full)
        else:
            patch.setattr(activations, where, full)
        with pytest.raises(ConceptLabError, match="The harvest in .* stopped: .*make room or set CONCEPTLAB_CACHE"):
            harvest(lm, rows, (0,), folder=tmp_path / "h", progress=False)
    found = harvest(lm, rows, (0,), folder=tmp_path / "h", progress=False)
    whole = harvest(lm, rows, (0,), folder=tmp_path / "whole", progress=False)
    assert np.array_equal(read(found, 0), read(whole, 0))


def test_a_file_size_limit_of_the_system_is_one_sentence(lm, rows, tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, hard))  # a real refusal by the system, as of a full disk
    try:
        with pytest.raises(ConceptLabError, match="the disk is full"):
            harvest(lm, rows, (0, 1), folder=tmp_path / "h", progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_room_on_the_disk_is_reserved(lm, rows, tmp_path, monkeypatch):
    seen, real = [], activations.write_at

    def look(path, *rest):
        seen.append((path.stat().st_size, path.stat().st_blocks * 512))
        return real(path, *rest)

    monkeypatch.setattr(activations, "write_at", look)
    found = harvest(lm, rows, (0,), folder=tmp_path / "h", progress=False)
    size = 2 * found.n_tokens * found.d_model
    assert seen[0][0] == size and seen[0][1] >= size, "before the first value is written"


# ---- values that the files cannot hold -------------------------------------------------------------------
def grown(lm, value):
    with torch.no_grad():
        lm.parameters()[lm.down_proj_name(1)].mul_(value)
    return lm


@pytest.mark.parametrize("kind", ["mlp_output", "mlp_contribution"])
def test_what_overflows_float16_is_refused(lm, rows, tmp_path, kind):
    with pytest.raises(ConceptLabError, match=rf"The activations '{kind}' of layer 1 reach .* more than float16 holds"):
        harvest(grown(lm, 1e12), rows, (0, 1), kind=kind, folder=tmp_path / "h", progress=False)
    assert not (tmp_path / "h" / "state.json").exists()


@pytest.mark.parametrize("kind", ["resid_post", "resid_pre"])
def test_residual_streams_are_stored_as_float32(lm, rows, tmp_path, kind):
    with torch.no_grad():
        lm.parameters()[lm.embedding_name()].mul_(1e8)
    found = harvest(grown(lm, 1e8), rows, (1,), kind=kind, folder=tmp_path / "h", progress=False)
    wanted = lm.capture(rows.ids, [(kind, 1)])[kind, 1][torch.from_numpy(found.row), torch.from_numpy(found.pos)]
    assert torch.equal(found.tensor(1), wanted) and float(wanted.abs().max()) > 65_504
    assert found.memmap(1).dtype == np.float32


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", ["mlp_output", "resid_post", "neurons"])
def test_what_is_not_finite_is_refused(lm, rows, tmp_path, value, kind):
    with torch.no_grad():
        lm.parameters()[lm.embedding_name()][int(rows.ids[0, 2])] = value
    with pytest.raises(ConceptLabError, match=rf"The activations '{kind}' of layer 1 are not finite"):
        harvest(lm, rows, (1,), kind=kind, folder=tmp_path / "h", progress=False)


# ---- arguments -------------------------------------------------------------------------------------------
NONSENSE = [
    ({"rows": []}, "needs TokenRows, not a list"),
    ({"rows": torch.ones(2, 3)}, "needs TokenRows, not a Tensor"),
    ({"rows": TokenRows(torch.zeros(0, 8, dtype=torch.long), torch.zeros(0, 8, dtype=torch.long))}, "no rows"),
    ({"rows": TokenRows(torch.ones(2, 8, dtype=torch.long), -torch.ones(2, 8, dtype=torch.long))}, "no token that"),
    ({"rows": TokenRows(torch.ones(4, 1, dtype=torch.long), torch.ones(4, 1, dtype=torch.long))}, "no token that"),
    ({"layers": []}, "No layer is given"),
    ({"layers": [1.5]}, "Layer 1.5 is not a whole number"),
    ({"layers": ["1"]}, "Layer '1' is not a whole number"),
    ({"layers": [True]}, "Layer True is not a whole number"),
    ({"layers": [None]}, "Layer None is not a whole number"),
    ({"layers": [0, 7]}, "layer 7 does not exist"),
    ({"kind": "mlp_outputs"}, "Unknown site 'mlp_outputs'; the sites are"),
    ({"batch_size": 0}, "batch_size is 0"),
    ({"batch_size": -3}, "batch_size is -3"),
    ({"part": (2, 2)}, r"part is \(2, 2\)"),
    ({"part": (-1, 2)}, "part is"),
    ({"part": (0, 0)}, "part is"),
]


def test_arguments_that_make_no_sense(lm, rows, tmp_path):
    unchecked = inspect.unwrap(harvest)  # without the type checker that the tests put around it
    for change, message in NONSENSE:
        given = {"rows": rows, "layers": [0], "folder": tmp_path / "h", "progress": False} | change
        with pytest.raises(ConceptLabError, match=message):
            unchecked(lm, **given)
        assert not (tmp_path / "h").exists(), change
