"""Cache folder, atomic writes, checksums and the download of packages (no network: pip is replaced)."""

import errno
import os
import subprocess
import zipfile

import pytest

from conceptlab.core import (
    ConceptLabError,
    Package,
    atomic_path,
    cache_dir,
    files,
    package_path,
    packages,
    require_space,
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "cache"))
    return cache_dir()


@pytest.fixture
def wheel(tmp_path):
    """A tiny archive and the Package that describes it."""
    path = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/data.txt", "hello")
    return path, Package("tiny==1.0", path.name, files.sha256(path), path.stat().st_size)


@pytest.fixture
def pip(monkeypatch):
    """Replace pip; set `.body` to what it does with its target folder. Calls are counted."""

    class Pip:
        calls = 0
        body = staticmethod(lambda folder: "")

        def run(self, command, **_):
            Pip.calls += 1
            folder = command[command.index("-d") + 1]
            error = Pip.body(packages.Path(folder))
            return subprocess.CompletedProcess(command, bool(error), "", error)

    fake = Pip()
    monkeypatch.setattr(packages.subprocess, "run", fake.run)
    return Pip


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


# ---- packages -----------------------------------------------------------------------------------------------
def test_a_package_is_downloaded_once_and_hashed_once(home, wheel, pip, monkeypatch):
    path, package = wheel
    pip.body = lambda folder: files.shutil.copy(path, folder) and ""
    assert packages.read_member(package, "tiny/data.txt") == b"hello"
    assert pip.calls == 1 and left(home) == [package.filename, package.filename + ".verified"]
    monkeypatch.setattr(packages, "sha256", lambda _: pytest.fail("hashed again"))
    assert package_path(package).parent == home / "packages" and pip.calls == 1


def test_a_file_that_changed_after_it_was_verified_is_hashed_again(home, wheel, pip):
    path, package = wheel
    pip.body = lambda folder: files.shutil.copy(path, folder) and ""
    package_path(package).write_bytes(b"truncated")
    with pytest.raises(ConceptLabError, match="the file was removed, download it again: python -m pip download"):
        package_path(package)
    assert left(home) == []
    assert package_path(package).read_bytes() == path.read_bytes() and pip.calls == 2  # the next call works


def test_a_wrong_checksum_after_the_download(home, wheel, pip):
    _, package = wheel
    pip.body = lambda folder: (folder / package.filename).write_bytes(b"something else") and ""
    with pytest.raises(ConceptLabError, match=f"{package.filename} has the checksum .*, expected ") as error:
        package_path(package)
    one_sentence(error)
    assert left(home) == []


@pytest.mark.parametrize(
    ("stderr", "shown"),
    [
        ("WARNING: retry\nERROR: No matching distribution found for tiny==1.0", "No matching distribution"),
        ("/usr/bin/python: No module named pip", "No module named pip"),
        ("", "no such file"),
    ],
)
def test_a_package_that_pip_cannot_download(home, wheel, pip, stderr, shown):
    _, package = wheel
    pip.body = lambda _: stderr
    with pytest.raises(ConceptLabError, match="is missing and could not be downloaded") as error:
        package_path(package)
    text = one_sentence(error)
    assert shown in text and text.endswith(package.pip_line)
    assert package.pip_line == f"python -m pip download --no-deps -d {home / 'packages'} tiny==1.0"
    assert left(home) == []


def test_no_space_for_a_download(home, wheel, pip, monkeypatch):
    _, package = wheel
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: files.shutil._ntuple_diskusage(0, 0, 0))
    with pytest.raises(ConceptLabError, match="Downloading tiny==1.0 needs"):
        package_path(package)
    assert pip.calls == 0 and left(home) == []


def test_an_interrupted_download_leaves_nothing(home, wheel, pip):
    path, package = wheel

    def interrupted(folder):
        (folder / package.filename).write_bytes(b"half")
        raise KeyboardInterrupt

    pip.body = interrupted
    with pytest.raises(KeyboardInterrupt):
        package_path(package)
    assert left(home) == []
    pip.body = lambda folder: files.shutil.copy(path, folder) and ""
    assert package_path(package).exists()


def test_leftovers_of_a_killed_process_are_swept_after_hours(tmp_path):
    old, young = tmp_path / ".model.aaaa", tmp_path / ".model.bbbb"
    for folder in (old, young):
        folder.mkdir()
        (folder / "half").write_text("x")
    os.utime(old, (0, 0))
    with atomic_path(tmp_path / "model") as temporary:
        temporary.write_text("whole")
    assert not old.exists() and young.exists() and (tmp_path / "model").read_text() == "whole"
