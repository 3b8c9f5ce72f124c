"""Cache folder, atomic writes, checksums and the download of packages (no network: pip is replaced)."""

import errno
import os

import pytest

from conceptlab.core import (
    ConceptLabError,
    atomic_path,
    cache_dir,
    files,
    require_space,
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "cache"))
    return cache_dir()


def left(folder):
    """Files below a folder, by name."""
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def one_sentence(error) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) < 500 and text.endswith((".", "1.0")), text
    return text


# ---- the folder ---------------------------------------------------------------------------------------------
def test_cache_dir_is_made_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "a" / "b"))
    assert cache_dir() == tmp_path / "a" / "b" and cache_dir().is_dir()


def test_cache_dir_defaults_to_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("CONCEPTLAB_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "conceptlab"


def test_a_cache_folder_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ConceptLabError, match="set CONCEPTLAB_CACHE to a folder you can write to") as error:
        cache_dir()
    one_sentence(error)


# ---- space --------------------------------------------------------------------------------------------------
def test_require_space_keeps_a_margin(tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: files.shutil._ntuple_diskusage(0, 0, 1_050_000))
    require_space(tmp_path, 1_000_000, "A test")
    with pytest.raises(ConceptLabError, match=r"A test needs 0\.00 GB .* make room, or set CONCEPTLAB_CACHE") as error:
        require_space(tmp_path, 1_000_001, "A test")
    one_sentence(error)


# ---- atomic_path --------------------------------------------------------------------------------------------
def test_atomic_path_writes_files_and_folders(tmp_path):
    with atomic_path(tmp_path / "new" / "file.txt") as temporary:
        temporary.write_text("1")
    with atomic_path(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "inside").write_text("2")
    assert left(tmp_path) == ["file.txt", "inside"]
    with atomic_path(tmp_path / "folder") as temporary:  # replaces the whole folder
        temporary.mkdir()
        (temporary / "other").write_text("3")
    assert left(tmp_path) == ["file.txt", "other"]


@pytest.mark.parametrize("stop", [ValueError("bad"), KeyboardInterrupt(), SystemExit(1)])
def test_atomic_path_leaves_the_old_file_after_an_exception(tmp_path, stop):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(type(stop)), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise stop
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    "full",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),  # safetensors
    ],
)
def test_a_disk_that_fills_up_while_writing(tmp_path, full):
    with pytest.raises(ConceptLabError, match="No space left .* make room, or set CONCEPTLAB_CACHE") as error:
        with atomic_path(tmp_path / "big.bin") as temporary:
            temporary.write_text("half")
            raise full
    one_sentence(error)
    assert list(tmp_path.iterdir()) == []


def test_another_os_error_is_not_called_a_full_disk(tmp_path):
    with pytest.raises(PermissionError), atomic_path(tmp_path / "x") as _:
        raise PermissionError(errno.EACCES, "no")


def test_leftovers_of_a_killed_process_are_swept_after_hours(tmp_path):
    old, young = tmp_path / ".model.aaaa", tmp_path / ".model.bbbb"
    for folder in (old, young):
        folder.mkdir()
        (folder / "half").write_text("x")
    os.utime(old, (0, 0))
    with atomic_path(tmp_path / "model") as temporary:
        temporary.write_text("whole")
    assert not old.exists() and young.exists() and (tmp_path / "model").read_text() == "whole"
