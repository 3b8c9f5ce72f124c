"""The how-to pages, walked: a concept of one's own, and a model of one's own."""

import argparse
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from conceptlab import cli
from conceptlab.edits import WeightEdit
from conceptlab.erasure import method as interface
from conceptlab.models import load_model
from sizes import SMALL

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


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


# ---- every command that a page names --------------------------------------------------------------------------
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md")),
    *sorted(DOCS.glob("*.md")),
    *sorted((ROOT / "notebooks").glob("*.ipynb")),
]


VERB = re.compile(r"(?:^[ !$]*|`)conceptlab ([a-z][\w-]*)", re.M)


def text_of(page: Path) -> str:
    """What a reader sees; of a notebook the sources of its cells."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        text = "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return re.sub(r"accelerate launch [^\n]*? -m conceptlab\.cli", "conceptlab", text)


@pytest.fixture(scope="module")
def parsers():
    """The whole command line, and verb -> its own parser."""
    parser = argparse.ArgumentParser(prog="conceptlab")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in sys.modules["conceptlab.cli.main"].VERBS:
        verb.add(verbs)
    return parser, verbs.choices


def misfits(text: str, known: dict[str, argparse.ArgumentParser]) -> list[str]:
    """Verbs and options in a text that the command line does not have.

    An option belongs to the verbs of its own line, else to those of its paragraph; a paragraph without a verb is not
    about the command line.
    """
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        everywhere = VERB.findall(paragraph)
        found += [f"conceptlab {verb}" for verb in everywhere if verb not in known]
        for line in paragraph.splitlines() if everywhere else ():
            verbs = [verb for verb in VERB.findall(line) or everywhere if verb in known]
            there = {option for verb in verbs for option in known[verb]._option_string_actions}
            options = re.findall(r"(?<![\w-])--[a-z][a-z-]*", line)
            found += [f"{' or '.join(verbs)} {option}" for option in options if option not in there]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_is_there_with_its_options(page, parsers):
    from conceptlab.experiments import EXPERIMENTS

    parser, verbs = parsers
    text = text_of(page)
    assert not misfits(text, verbs)
    named = re.findall(r"conceptlab reproduce ([a-z]\w*)", text)
    assert not set(named) - EXPERIMENTS.keys()
    for line in re.findall(r"^ *(conceptlab [a-z].*)$", text, re.M):  # written out, to be copied
        try:
            parser.parse_args(shlex.split(line, comments=True)[1:])
        except SystemExit:
            pytest.fail(f"{page.name}: {line}")


def test_a_verb_or_an_option_that_is_not_there_is_found(parsers):
    text = "Run `conceptlab erase golf --crad`.\n\n    conceptlab eraze golf\n\n`pip install --no-deps`"
    assert misfits(text, parsers[1]) == ["erase --crad", "conceptlab eraze"]
    assert misfits("`conceptlab reproduce lab` goes on:\n`--concepts` adds, `--metods` too.", parsers[1]) == [
        "reproduce --metods"
    ]
    assert any("erase" in VERB.findall(text_of(page)) for page in PAGES)
