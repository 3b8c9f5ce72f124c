"""A run of the course when something goes wrong: damaged files, pages that are refused, Ctrl-C, a reader that left."""

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from conceptlab.core import ConceptLabError
from conceptlab.course import notebook
from conceptlab.course import run as course
from conceptlab.course.headline import MIME, Headline
from conceptlab.course.plots import COLORS
from conceptlab.course.results import Result, read_results, update_results
from conceptlab.course.site import CourseSite

ROOT = Path(__file__).resolve().parents[2]
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
GOOD = Result("Is it?", 0.1, Headline("drop", 0.5, 0.4, 0.6), None)
WHOLE = {
    "question": "Is it?", "minutes": 0.1, "error": None,
    "headline": {"label": "drop", "value": 0.5, "low": 0.4, "high": 0.6},
}  # fmt: skip
IMAGE = {"image/png": "AAAA"}


def make(root, **sources):
    """A course whose notebooks hold a title and the given cells."""
    for name, cells in sources.items():
        cells = [new_markdown_cell(f"# Is {name} sound?"), *map(new_code_cell, cells)]
        notebook.write(new_notebook(cells=cells, metadata=KERNEL), root / "notebooks" / f"0{name}.ipynb")
    return root


@pytest.fixture
def executed(monkeypatch):
    """Outputs by notebook; `execute` gives them without a kernel."""
    outputs = {}

    def execute(path, progress, timeout):
        nb = notebook.read(path)
        data = outputs.get(path.stem, {"text/plain": "1"})
        nb.cells[1].outputs = [new_output("display_data", data=data)]
        return course.Execution(nb, 0.1, None, None)

    monkeypatch.setattr(course, "execute", execute)
    monkeypatch.setattr(CourseSite, "build", lambda site: built.append(sorted(set(site.shown) - set(site.refused))))
    return outputs


built: list[list[str]] = []  # what every build of the site would have shown


# ---- results ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    ["", "{", json.dumps({"00_a": WHOLE})[:-7], "[]", "null", "7", '"x"', "\x00\x00", "[" * 100_000, '{"a": NaN'],
)
def test_damaged_results_start_anew_with_a_note(tmp_path, capsys, text):
    path = tmp_path / "results.json"
    path.write_text(text, encoding="utf-8")
    assert read_results(path) == {}
    assert capsys.readouterr().out.endswith("the site starts anew with this run.\n")
    assert update_results(path, {"00_a": GOOD}, {"00_a"}) == {"00_a": GOOD} == read_results(path)


def test_results_that_are_no_text_or_a_folder_start_anew(tmp_path, capsys):
    (tmp_path / "results.json").write_bytes(b"\xff\xfe{\x00")
    (tmp_path / "folder.json").mkdir()
    assert read_results(tmp_path / "results.json") == read_results(tmp_path / "folder.json") == {}
    assert read_results(tmp_path / "none.json") == {} and capsys.readouterr().out.count("\n") == 2


@pytest.mark.parametrize(
    "entry",
    [
        None, [], {}, "x", {k: v for k, v in WHOLE.items() if k != "minutes"}, WHOLE | {"minutes": "long"},
        WHOLE | {"headline": "0.5"}, WHOLE | {"headline": {"label": "drop"}}, WHOLE | {"error": 7},
        WHOLE | {"headline": {"label": "drop", "value": "much"}},
    ],
)  # fmt: skip
def test_an_entry_of_another_version_is_left_out_with_a_note_and_the_others_stay(tmp_path, capsys, entry):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"00_a": WHOLE, "01_b": entry}), encoding="utf-8")
    assert read_results(path) == {"00_a": GOOD}
    assert "'01_b' was written by another version" in capsys.readouterr().out


def test_a_run_goes_through_with_damaged_results(tmp_path, executed, capsys):
    make(tmp_path, a=["1"])
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "results.json").write_text('{"0a": {"ques', encoding="utf-8")
    assert course.main(["run", "--root", str(tmp_path)]) == 0
    assert list(read_results(tmp_path / "build" / "results.json")) == ["0a"]


# ---- pages -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"text/html": '<script src="https://cdn.example/x.js"></script>'}, "load from the network: https://cdn"),
        ({"text/html": "<img src='//cdn.example/x.png'>"}, "load from the network: //cdn"),
        ({"text/html": '<style>@import "https://cdn.example/x.css"</style>'}, "load from the network: https://cdn"),
        ({"image/png": "A"}, "not base64"),
        ({MIME: {"label": "x"}, "text/html": ["<script src=https://cdn.example/x.js>"]}, "network: https://cdn"),
    ],
)
def test_a_page_that_is_refused_fails_its_notebook_and_the_others_go_on(tmp_path, executed, capsys, data, said):
    make(tmp_path, a=["1"], b=["1"], c=["1"])
    executed["0b"] = data
    page = tmp_path / "build" / "site" / "0b.html"
    page.parent.mkdir(parents=True)
    page.write_text("of an earlier run", encoding="utf-8")
    built.clear()
    assert course.main(["run", "--root", str(tmp_path)]) == 1
    found = read_results(tmp_path / "build" / "results.json")
    assert [name for name, result in found.items() if result.error] == ["0b"] and said in found["0b"].error
    err = capsys.readouterr().err
    assert said in err and "Failed: 0b" in err and err.count("\n") == 2
    assert not page.exists(), "an older page would pass for this run's"
    assert len(built) == 4 and built[0] == ["0a", "0b", "0c"], "the site is there before the first cell runs"
    assert built[-1] == ["0a", "0c"]


def test_a_file_that_is_no_notebook_fails_alone(tmp_path, executed, capsys):
    make(tmp_path, a=["1"], c=["1"])
    for text in ("{", "[]", '{"cells": [], "nbformat": 4}', ""):
        (tmp_path / "notebooks" / "0b.ipynb").write_text(text, encoding="utf-8")
        assert course.main(["run", "--root", str(tmp_path)]) == 1
        err = capsys.readouterr().err
        assert err.count("0b.ipynb is no notebook that can be read") == 2, "once for the site, once when it runs"
        assert course.main(["student", "--root", str(tmp_path)]) == 1
        assert capsys.readouterr().err.count("\n") == 1
    assert built[-1] == ["0a", "0c"]


@pytest.mark.parametrize(
    "encoded", ["A", "AAAA", "", "iVBORw0KGgo=", "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ", "\u00e9"]
)
def test_a_damaged_picture_is_left_as_it_is(encoded):
    assert notebook.smaller_png(encoded) == encoded


def test_a_smaller_picture_keeps_the_colours_that_tell_kinds_apart():
    fig, axes = plt.subplots(1, 3, figsize=(12, 4), dpi=110)
    rng = np.random.default_rng(0)
    for ax in axes:
        ax.set_title("Points of seven kinds, pale, and their means")
        for i, color in enumerate(COLORS.values()):
            ax.plot(rng.normal(size=40), rng.normal(i, size=40), ".", color=color, alpha=0.3)
            ax.plot([i], [i], "o", markersize=4, color=color, label=f"kind {i}")
    before, kept = io.BytesIO(), io.BytesIO()
    fig.savefig(before)
    plt.close(fig)
    encoded = base64.b64encode(before.getvalue()).decode()
    smaller = notebook.smaller_png(encoded)
    assert len(smaller) < len(encoded) / 2
    kept.write(base64.b64decode(smaller))
    was, now = (np.asarray(Image.open(file).convert("RGB")).astype(int) for file in (before, kept))
    for color in COLORS.values():
        place = (was == np.round(255 * np.array(to_rgb(color))).astype(int)).all(-1)
        assert place.sum() > 20 and np.abs(was - now)[place].max() <= 2, color


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid"), reason="rights of folders")
def test_places_that_cannot_be_written_are_one_sentence_before_anything_runs(tmp_path, executed, monkeypatch, capsys):
    make(tmp_path, a=["1"])
    (tmp_path / "build").write_text("a file", encoding="utf-8")
    monkeypatch.setattr(course, "execute", lambda *_: pytest.fail("the work must not start"))
    assert course.main(["run", "--root", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "build" in err and err.count("\n") == 1


def test_a_full_disk_is_one_sentence(tmp_path, executed, monkeypatch, capsys):
    import errno

    make(tmp_path, a=["1"], b=["1"])

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    assert course.main(["run", "--root", str(tmp_path)]) == 1
    err = capsys.readouterr().err.splitlines()
    assert err and all("No space left on the disk" in line for line in err)


# ---- interruptions -----------------------------------------------------------------------------------------
def test_ctrl_c_is_one_line_and_keeps_what_had_ended(tmp_path):
    make(tmp_path, a=["print(1)"], b=["import time; time.sleep(1.2)", "time.sleep(600)"])
    command = [sys.executable, "-m", "conceptlab.course", "run", "--no-site", "--root", str(tmp_path)]
    quick = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=quick) as process:
        for line in process.stdout:
            if line.startswith("0b  cell 1/2"):
                break
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert err == "Interrupted; notebooks that had ended are kept.\n"
    assert list(read_results(tmp_path / "build" / "results.json")) == ["0a"]
    assert (tmp_path / "build" / "notebooks" / "0a.ipynb").exists()


def test_a_cell_has_two_hours():
    assert course.CELL_SECONDS == 7_200


def test_main_names_what_is_missing_and_returns_1(tmp_path, capsys):
    assert course.main(["run", "--root", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("No notebooks here")
    with pytest.raises(ConceptLabError, match=r"x\.ipynb is no notebook"):
        notebook.read(tmp_path / "x.ipynb")


# ---- the Makefile ------------------------------------------------------------------------------------------
def called(folder, *words):
    return subprocess.run(["make", "-C", str(folder), *words], capture_output=True, text=True)


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_a_wrong_only_is_refused_before_anything_is_made(tmp_path):
    for name in ("Makefile", "lib", "notebooks"):
        (tmp_path / name).symlink_to(ROOT / name)
    python = f"PYTHON={sys.executable}"
    for only, said in (("nonsense", "meant by nonsense"), (",", "meant by ','"), ("01,99", "meant by 99")):
        refused = called(tmp_path, "run", f"ONLY={only}", python)
        assert refused.returncode and said in refused.stderr and "There are: tour, 00_start_here" in refused.stderr
    assert called(tmp_path, "only", "ONLY=pisces,1", python).returncode == 0
    told = called(tmp_path, "run", "PYTHON=no-such-python").stderr
    assert "there is no 'no-such-python' here" in told
    assert not (tmp_path / ".venv").exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_the_site_is_built_before_models_are_fetched():
    steps = called(ROOT, "-n", "run").stdout
    assert -1 < steps.index("conceptlab.course site") < steps.index("conceptlab.cli fetch")
    assert steps.index("conceptlab.cli fetch") < steps.index("conceptlab.course run")
