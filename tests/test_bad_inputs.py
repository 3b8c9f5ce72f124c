"""Bad input gets one sentence before any work; the page that lists them says what the library says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tried():
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "support" / "bad_inputs.py"], capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_bad_input_gets_one_sentence_before_any_work(tried):
    assert len(tried["found"]) >= 120
    wrong = []
    for _, what, kind, text in tried["found"]:
        fine = (
            kind in ("ConceptLabError", "NotPossible") and "\n" not in text and text.endswith(".") and len(text) < 500
        )
        wrong += [] if fine else [(what, kind, text)]
    assert not wrong, wrong


def test_no_input_is_listed_twice(tried):
    names = [(section, what) for section, what, *_ in tried["found"]]
    assert len(set(names)) == len(names)


def test_the_page_is_up_to_date(tried):
    written = (ROOT / "docs" / "bad_inputs.md").read_text(encoding="utf-8")
    assert written == tried["page"], "write it anew: python tests/support/bad_inputs.py --write"
    for place in (str(ROOT), str(Path.home()), "/tmp"):
        assert place not in written
    assert len(re.findall(r"^\| `", written, re.M)) == len(tried["found"])
