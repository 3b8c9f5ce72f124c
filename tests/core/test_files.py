"""Cache folder, atomic writes, room on the disk, outputs that can be written."""

import errno
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from conceptlab.core import (
    ConceptLabError,
    atomic_path,
    cache_dir,
    check_output,
    files,
    rename,
    require_space,
)
from killed import FORK, kill_at
from left_behind import left, one_sentence


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "cache"))
    return cache_dir()


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


# ---- old or new, at every moment --------------------------------------------------------------------------------
def write_folder(target, text, n=5):
    with atomic_path(target) as temporary:
        temporary.mkdir()
        for i in range(n):
            (temporary / f"{i}.txt").write_text(text)


def whole(target, texts):
    """Whether the folder holds five files of one of the texts, and nothing else."""
    found = [p.read_text() for p in sorted(target.iterdir())]
    return len(found) == 5 and len(set(found)) == 1 and found[0] in texts


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_folder_is_old_or_new_when_its_writer_is_killed_at_any_step(tmp_path, how):
    for n in range(1, 200):
        target = tmp_path / str(n) / "model"
        write_folder(target, "old")
        code = kill_at(n, write_folder, target, "new", how=how)
        assert whole(target, {"old", "new"}), f"step {n}"
        write_folder(target, "last")
        assert whole(target, {"last"})
        left_over = [p for p in target.parent.iterdir() if p != target and (p / "held").exists()]
        assert left_over == [], f"step {n}"
        if code == 0:
            break
    assert code == 0 and n > 20


def test_without_an_exchange_by_the_system_an_interrupt_puts_the_old_folder_back(tmp_path, monkeypatch):
    target, renames = tmp_path / "model", []
    write_folder(target, "old")
    monkeypatch.setattr(rename, "_exchange", lambda a, b: False)
    real = os.rename

    def counted(a, b):
        renames.append((a, b))
        if len(renames) == 3:  # the old one is aside, the new one is not there yet
            raise KeyboardInterrupt
        return real(a, b)

    monkeypatch.setattr(os, "rename", counted)
    with pytest.raises(KeyboardInterrupt):
        write_folder(target, "new")
    assert whole(target, {"old"}) and list(tmp_path.iterdir()) == [target]
    write_folder(target, "new")
    assert whole(target, {"new"}) and list(tmp_path.iterdir()) == [target]


def test_an_interrupt_while_the_old_folder_is_removed(tmp_path, monkeypatch):
    target, real = tmp_path / "model", files.shutil.rmtree
    write_folder(target, "old")
    stops = iter([True])

    def interrupted(path, **options):
        if next(stops, False):
            (path / "model" / "0.txt").unlink()
            raise KeyboardInterrupt
        return real(path, **options)

    monkeypatch.setattr(files.shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_folder(target, "new")
    assert whole(target, {"new"}) and list(tmp_path.iterdir()) == [target]


def write_often(target, text, n):
    for _ in range(n):
        write_folder(target, text)


@pytest.mark.parametrize("exchange", [True, False])
def test_writers_of_one_folder_do_not_hurt_each_other(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(rename, "_exchange", lambda a, b: False)
    target, names = tmp_path / "model", ("a", "b", "c")
    writers = [FORK.Process(target=write_often, args=(target, name, 60)) for name in names]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [w.exitcode for w in writers] == [0, 0, 0]
    assert whole(target, set(names)) and list(tmp_path.iterdir()) == [target]


def test_a_folder_does_not_replace_a_file_nor_a_file_a_folder(tmp_path):
    (tmp_path / "file").write_text("old")
    write_folder(tmp_path / "folder", "old")
    with pytest.raises(ConceptLabError, match="file is a file; give the name of a folder"):
        write_folder(tmp_path / "file", "new")
    with pytest.raises(ConceptLabError, match="folder is a folder; give the name of a file"):
        with atomic_path(tmp_path / "folder") as temporary:
            temporary.write_text("new")
    assert (tmp_path / "file").read_text() == "old" and whole(tmp_path / "folder", {"old"})


# ---- what is no plain file --------------------------------------------------------------------------------------
@pytest.fixture
def odd(tmp_path):
    """A link to a file, a link to nothing, a link to a folder, a pipe, a socket, a device."""
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    names = {"link": "file", "dangling": "nothing", "folder_link": "folder"}
    for name, to in names.items():
        (tmp_path / name).symlink_to(tmp_path / to)
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        yield [*(tmp_path / name for name in (*names, "pipe", "socket")), Path("/dev/null")]


def test_devices_pipes_and_links_are_not_replaced(odd, tmp_path):
    before = {path: path.lstat() for path in odd}
    for path in odd:
        for attempt in (lambda p: atomic_path(p).__enter__(), check_output, lambda p: check_output(p, folder=True)):
            with pytest.raises(ConceptLabError, match="is a link to|is no plain file") as error:
                attempt(path)
            one_sentence(error)
        assert path.lstat().st_ino == before[path].st_ino and path.lstat().st_mode == before[path].st_mode
    assert (tmp_path / "file").read_text() == "kept"


def test_outputs_are_checked_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    assert check_output(tmp_path / "new" / "deep" / "x.csv") == tmp_path / "new" / "deep" / "x.csv"
    assert check_output(tmp_path / "file") and check_output(tmp_path, folder=True)
    assert check_output(tmp_path / "new", folder=True) and not (tmp_path / "new").exists()
    monkeypatch.chdir(tmp_path)
    assert check_output("x.csv") == Path("x.csv") and sorted(p.name for p in tmp_path.iterdir()) == ["file"]
    wrong = {
        "is a folder; give the name of a file in it": (tmp_path, False),
        "is a file; give the name of a folder": (tmp_path / "file", True),
        "file/x.csv cannot be written": (tmp_path / "file" / "x.csv", False),
        "is no name of a file": ("", False),
        "is no name of a folder": ("/", True),
        "/proc/x.csv cannot be written": ("/proc/x.csv", False),
    }
    for message, (path, folder) in wrong.items():
        with pytest.raises(ConceptLabError, match=message):
            check_output(path, folder)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENOSPC])
def test_a_disk_that_takes_nothing_is_one_sentence(tmp_path, monkeypatch, number):
    def refuses(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.tempfile, "mkdtemp", refuses)
    with pytest.raises(ConceptLabError, match="cannot be written|No space left") as error:
        with atomic_path(tmp_path / "x"):
            pass
    assert "CONCEPTLAB_CACHE" in one_sentence(error)
    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuses)
    with pytest.raises(ConceptLabError, match="x cannot be written .* choose another place"):
        check_output(tmp_path / "x")


@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_files_get_the_mode_of_the_umask(tmp_path, umask, file_mode, folder_mode):
    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "model") as temporary:
            files.Path(files.tempfile.mkdtemp(dir=temporary.parent)).rename(temporary)  # private, as libraries make it
            (temporary / "inner").mkdir(mode=0o700)
            os.close(os.open(temporary / "inner" / "weights", os.O_CREAT | os.O_WRONLY, 0o600))
        with atomic_path(tmp_path / "edit") as temporary:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    modes = {p.relative_to(tmp_path).as_posix(): p.stat().st_mode & 0o777 for p in tmp_path.rglob("*")}
    assert modes == {"model": folder_mode, "model/inner": folder_mode, "model/inner/weights": file_mode,
                     "edit": file_mode}  # fmt: skip


# ---- room, and the cache ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("value", ["", " "])
def test_a_cache_variable_set_to_nothing_is_not_set(tmp_path, monkeypatch, value):
    monkeypatch.setenv("CONCEPTLAB_CACHE", value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "conceptlab"


def convert(target, started):
    with atomic_path(target) as temporary:
        temporary.mkdir()
        (temporary.parent / "joined.gguf").write_bytes(b"x" * 1_000)
        started.set()
        time.sleep(60)


def test_what_a_killed_conversion_left_is_swept_at_once_and_a_running_one_is_not(tmp_path):
    target, started = tmp_path / "model", FORK.Event()
    process = FORK.Process(target=convert, args=(target, started))
    process.start()
    assert started.wait(60)
    (holder,) = tmp_path.iterdir()
    write_folder(target, "other")
    assert (holder / "joined.gguf").exists(), "its writer is alive"
    process.kill()
    process.join()
    write_folder(target, "again")
    assert list(tmp_path.iterdir()) == [target]
