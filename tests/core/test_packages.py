"""Archives of the package registry: verified, and nothing of them is ever run, whatever an index serves."""

import http.server
import io
import os
import subprocess
import tarfile
import threading
import zipfile

import pytest

from conceptlab.core import ConceptLabError, Package, cache_dir, files, package_path, packages
from left_behind import left, one_sentence


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
    assert shown in text and text.endswith(package.advice)
    assert package.advice == f"python -m pip download --no-deps --only-binary :all: -d {home / 'packages'} tiny==1.0"
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


@pytest.mark.parametrize("put_back", [False, True])
def test_a_changed_archive_is_noticed_even_with_its_old_time(home, wheel, pip, put_back):
    path, package = wheel
    pip.body = lambda folder: files.shutil.copy(path, folder) and ""
    there = package_path(package)
    time, data = there.stat().st_mtime_ns, bytearray(there.read_bytes())
    data[-1] ^= 1
    there.write_bytes(data)
    if put_back:
        os.utime(there, ns=(time, time))
    with pytest.raises(ConceptLabError, match="has the checksum"):
        package_path(package)


def test_a_checksum_that_the_library_changed_is_looked_at(home, wheel, pip):
    path, package = wheel
    pip.body = lambda folder: files.shutil.copy(path, folder) and ""
    package_path(package)
    with pytest.raises(ConceptLabError, match="expected 0000"):
        package_path(Package(package.requirement, package.filename, "0" * 64, package.n_bytes))


def test_pip_gets_its_own_settings_and_no_secret(monkeypatch):
    secrets = ["CONCEPTLAB_API_KEY", "CONCEPTLAB_CACHE", "OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY",
               "DB_PASSWORD", "my_key", "GH_Token", "GOOGLE_APPLICATION_CREDENTIALS", "BASIC_AUTH"]  # fmt: skip
    for name in secrets:
        monkeypatch.setenv(name, "value")
    monkeypatch.setenv("PIP_INDEX_URL", "file:///simple")
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    found = packages.clean_environment()
    assert not set(secrets) & found.keys()
    assert {"PIP_INDEX_URL", "PYTHON_KEYRING_BACKEND", "PATH", "HOME"} <= found.keys()


# ---- a hostile index --------------------------------------------------------------------------------------------
EVIL = """
import os, pathlib
pathlib.Path({marker!r}).write_text("ran with " + os.environ.get("CONCEPTLAB_API_KEY", "no key"))
from setuptools import setup
setup(name={name!r}, version="1.0")
"""


def source(folder, name, marker, extra=""):
    """A source archive whose setup.py leaves a mark when it runs."""
    path = folder / f"{name}-1.0.tar.gz"
    texts = {"setup.py": EVIL.format(marker=str(marker), name=name) + extra, "data.txt": "hello"}
    texts["pyproject.toml"] = '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
    texts["PKG-INFO"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    with tarfile.open(path, "w:gz") as archive:
        for file, text in texts.items():
            info = tarfile.TarInfo(f"{name}-1.0/{file}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index on this machine that serves what lies in the folder; pip knows no other. Its requests."""
    folder, asked = tmp_path / "index", []
    folder.mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            words = self.path.strip("/").split("/")
            if words[0] == "simple":
                links = "".join(f'<a href="/files/{p.name}">{p.name}</a>' for p in sorted(folder.iterdir()))
                kind, data = "text/html", f"<!DOCTYPE html><html><body>{links}</body></html>".encode()
            else:
                kind, data = "application/octet-stream", (folder / words[-1]).read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in [x for x in os.environ if x.startswith("PIP_") or x.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_address[1]}/simple")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("CONCEPTLAB_API_KEY", "a secret")
    yield folder, asked
    server.shutdown()
    server.server_close()


def package_of(path, digest=None):
    name = path.name.split("-")[0]
    return Package(f"{name}==1.0", path.name, digest or files.sha256(path), path.stat().st_size)


def test_a_source_archive_is_saved_and_not_run(home, index, tmp_path):
    folder, asked = index
    path = source(folder, "evil", tmp_path / "marker")
    source(folder, "setuptools", tmp_path / "marker")  # what a build would ask for
    there = package_path(package_of(path))
    assert there.read_bytes() == path.read_bytes() and not (tmp_path / "marker").exists()
    assert [x for x in asked if x.startswith("/files")] == ["/files/evil-1.0.tar.gz"]
    assert left(home) == ["evil-1.0.tar.gz", "evil-1.0.tar.gz.verified"]


def test_a_source_archive_of_another_checksum_is_not_run_and_not_kept(home, index, tmp_path):
    folder, _ = index
    path = source(folder, "evil", tmp_path / "marker")
    with pytest.raises(ConceptLabError, match="evil-1.0.tar.gz has the checksum .* save evil-1.0.tar.gz from the page"):
        package_path(package_of(path, "0" * 64))
    assert not (tmp_path / "marker").exists() and left(home) == []


def test_a_source_archive_that_no_index_has(home, index, tmp_path):
    folder, _ = index
    path = source(folder, "evil", tmp_path / "marker")
    package = package_of(path)
    path.unlink()
    with pytest.raises(ConceptLabError, match="could not be downloaded .*no index has evil-1.0.tar.gz"):
        package_path(package)
    assert left(home) == []


def test_a_wheel_comes_with_its_checksum_or_not_at_all(home, index, tmp_path):
    folder, _ = index
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/data.txt", "hello")
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    with pytest.raises(ConceptLabError, match="tiny-1.0-py3-none-any.whl with another checksum"):
        package_path(package_of(path, "0" * 64))
    assert packages.read_member(package_of(path), "tiny/data.txt") == b"hello"


def test_a_source_archive_in_place_of_a_wheel_is_not_run(home, index, tmp_path):
    folder, _ = index
    source(folder, "tiny", tmp_path / "marker")
    with pytest.raises(ConceptLabError, match="could not be downloaded"):
        package_path(Package("tiny==1.0", "tiny-1.0-py3-none-any.whl", "0" * 64, 100))
    assert not (tmp_path / "marker").exists() and left(home) == []


def test_a_module_of_the_current_folder_is_not_taken_for_pip(home, index, tmp_path, monkeypatch):
    folder, _ = index
    path = source(folder, "evil", tmp_path / "marker")
    (tmp_path / "pip.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    package_path(package_of(path))
    with pytest.raises(ConceptLabError):
        package_path(Package("tiny==1.0", "tiny-1.0-py3-none-any.whl", "0" * 64, 100))
    assert not (tmp_path / "marker").exists()
