"""The how-to pages, walked: a concept of one's own, and a model of one's own."""

import re
from pathlib import Path

import pytest
import yaml

from conceptlab import cli
from conceptlab.edits import WeightEdit
from conceptlab.erasure import method as interface
from conceptlab.models import load_model
from sizes import SMALL

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def folder(tmp_path, tiny_llama, monkeypatch):
    """A random model in a folder, and searches in a cache of the test's own."""
    monkeypatch.setattr(interface, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr("conceptlab.erasure.SharedConfig", lambda: SMALL)
    tiny_llama(initializer_range=0.5, tie_word_embeddings=True).save(tmp_path / "model")
    return str(tmp_path / "model")


def test_adding_a_concept(folder, tmp_path, capsys):
    text = (DOCS / "adding_a_concept.md").read_text(encoding="utf-8")
    raw = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.S)[1])
    for part in (raw["questions"], raw["neighbour_questions"]):  # the page shows one question of each list
        for split, rows in part.items():
            part[split] = [
                {
                    **rows[0],
                    "options": [*rows[0]["options"]],
                    "id": f"{rows[0]['id']}-{i}",
                    "q": f"{rows[0]['q']} ({i})",
                }
                for i in range(40)
            ]
    path = tmp_path / "volcanoes.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    edit = tmp_path / "volcanoes.safetensors"
    line = ["erase", str(path), "--model", folder, "--method", "words_both", "--out", str(edit), "--card"]
    assert cli.main(line) == 0, capsys.readouterr().err
    assert "efficacy" in capsys.readouterr().out and WeightEdit.load(edit).info["side"] == "both"


def test_adding_a_model(folder, capsys):
    lm = load_model(folder)
    assert lm.fingerprint() == load_model(folder).fingerprint()
    assert cli.main(["erase", "golf", "--model", folder, "--method", "words", "--card"]) == 0
    assert "words: {'delta':" in capsys.readouterr().out


def test_every_command_of_the_pages_is_a_verb():
    for page in DOCS.glob("adding_*.md"):
        for verb in re.findall(r"`?conceptlab ([a-z-]+)", page.read_text(encoding="utf-8")):
            with pytest.raises(SystemExit) as stop:
                cli.main([verb, "--help"])
            assert stop.value.code == 0, (page.name, verb)
