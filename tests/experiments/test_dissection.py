"""The experiment of notebook 07 on a tiny model: what it writes, that it goes on, and what it pools."""

import importlib

import pytest
import torch

from conceptlab.core import Cell, ConceptLabError, Store, contents, read_table
from conceptlab.experiments import DissectionConfig, DissectionTable, dissection

HERE = "conceptlab.experiments.dissection"
SMALL = DissectionConfig(n_asked=24, n_questions=6, n_own=3, width=0.5, n_others=1, n_collateral=2, span=2, n_vectors=4)
METHODS = ["gradient_difference", "random_norm", "random_damage", "random_own"]


@pytest.fixture
def lm(tiny_llama, monkeypatch):
    edits = importlib.import_module(f"{HERE}.edits")
    monkeypatch.setattr(edits, "RECIPES", {name: (2, 1e-2) for name in edits.RECIPES})
    monkeypatch.setattr(importlib.import_module(f"{HERE}.bench"), "FEWEST_KNOWN", 3)
    monkeypatch.setattr(edits, "LEAST", 0.001)
    return tiny_llama(d_model=32)


def table(path):
    return {
        (r["concept"], r["method"], r["attack"], r["budget"], r["metric"]): float(r["value"]) for r in read_table(path)
    }


def test_cells_are_filled_and_a_finished_table_is_not_computed_again(lm, tmp_path, monkeypatch):
    path = tmp_path / "dissection.csv"
    assert dissection(lm, path, ["japan"], METHODS, SMALL) == path
    found = table(path)
    edit = ("japan", "gradient_difference")
    assert found[*edit, "gold/back/weights", "0-1", "mse"] == 1.0  # every changed weight is in a block
    assert found[*edit, "gold/into/weights", "0-1", "mse"] == 1.0
    assert {found[*edit, "own/back/values", w, "kl"] for w in ("0-0", "1-1", "0-1")}
    assert ("japan", "random_norm", "gold/damage", "", "kl") in found
    assert not any(k[1] == "random_norm" and "/back/" in k[2] for k in found)
    assert found[*edit, "moves", "1", "values"] > 0 and 0 < found[*edit, "span", "concept", "share"] < 1
    assert any(k[1] == "gradient_difference-random" for k in found)
    damage = [found["japan", m, "gold/damage", "", "gold_lost"] for m in ("gradient_difference", "random_damage")]
    assert damage[0] == pytest.approx(damage[1], rel=0.11)
    moved = [found["japan", m, "own/damage", "", "mse"] for m in ("gradient_difference", "random_own")]
    assert moved[0] == pytest.approx(moved[1], rel=0.06)
    assert ("japan", "gradient_difference-random_own", "own/back/values", "0-1", "mse") in found
    assert not any(k[1] == "random_own" and k[2].startswith("gold/back") for k in found)

    monkeypatch.setattr(importlib.import_module(f"{HERE}.cells"), "Dissection", None)  # would stop a second look
    dissection(lm, path, ["japan"], METHODS, SMALL)
    assert table(path) == found

    read = DissectionTable("tiny", found=contents(path))
    assert read.concepts() == ["japan"] and list(read.shares("japan", "gradient_difference", "own/back/values")) == [
        "0-0", "1-1", "0-1"
    ]  # fmt: skip
    treated, lost = read.questions("japan", "gradient_difference", "gold/back/values", "0-1", "mse")
    share = found[*edit, "gold/back/values", "0-1", "mse"]
    assert float(1 - treated.mean() / lost.mean()) == pytest.approx(share, abs=1e-3)
    assert read.moves("japan", "gradient_difference").shape == (2, 3)
    assert read.collateral("japan", METHODS[:3])[0].shape == (3, 1)
    assert not read.get("golf", "npo", "gold/damage").measurable
    assert read.shares("golf", "npo", "gold/back/values") == {}


def test_three_concepts_are_pooled_and_differences_are_paired(tmp_path):
    module = importlib.import_module(f"{HERE}.pooling")
    path, way = tmp_path / "dissection.csv", "gold/into/values"

    def record(level, n=6):
        rows = (level * (1 + 0.1 * torch.arange(n))).tolist()
        return {m: [-x for x in rows] if m == "gold" else rows for m in ("mse", "centred", "kl", "gold")}

    with Store(path, experiment="dissection", model="m") as store:
        for i, name in enumerate(("a", "b", "c")):
            for method, level in (("npo", 1.0), ("random_damage", 3.0)):
                one = {"x": importlib.import_module("conceptlab.core").Interval(1.0, 1.0, 1.0, 1)}
                both = {"whole": record(0.0), "lost": record(4.0 + 0.1 * i)}
                store.add(Cell(name, method, "gold/damage"), one, record=both)
                store.add(Cell(name, method, way, "0-4"), one, record=record(level))
        module.pool_dissections(store)
        store.finish()
    found = table(path)
    assert found["all", "npo", way, "0-4", "kl"] == pytest.approx(1 / 4.1, abs=0.01)  # brought in: 1 - (1 - 1 / 4.1)
    assert found["all", "npo-random", way, "0-4", "kl"] == pytest.approx(-2 / 4.1, abs=0.01)
    assert found["a", "npo-random", way, "0-4", "gold"] == pytest.approx(-0.5, abs=0.01)


def test_an_edit_that_is_not_there_is_refused_and_one_that_cannot_be_made_left_out(lm, tmp_path):
    path = tmp_path / "dissection.csv"
    with pytest.raises(ConceptLabError, match="no edit"):
        dissection(lm, path, ["japan"], ["elm"], SMALL)
    with pytest.raises(ConceptLabError, match="no cell"):  # the table of the lab has nothing on this model
        dissection(lm, path, ["japan"], ["pisces"], SMALL)
