"""The experiment of notebook 08 on a tiny model: what it writes, that it goes on, and what it pools."""

import importlib

import pytest
import torch

from conceptlab.core import ConceptLabError, contents, read_table
from conceptlab.experiments import SpecialisationConfig, specialisation, teaching_sets
from conceptlab.specialisation import TeachingConfig

HERE = "conceptlab.experiments.specialisation"
SMALL = SpecialisationConfig(
    n_dev=3, n_asked=16, n_own=3, n_others=4, shares=(0.003, 0.03), teach_share=0.05, n_people=1
)


@pytest.fixture
def lm(tiny_llama, tmp_path, monkeypatch):
    from conceptlab.data import list_concepts, load_concept, vital_articles, web_passages

    vital_articles(), web_passages()
    four = ["golf", "japan", "astronomy", "baseball"]
    assert set(four) <= set(list_concepts()) and load_concept("golf").dev
    monkeypatch.setattr(importlib.import_module(f"{HERE}.bench"), "list_concepts", lambda: four)
    return tiny_llama(d_model=32)


def table(path):
    return {
        (r["concept"], r["method"], r["attack"], r["budget"], r["metric"]): float(r["value"]) for r in read_table(path)
    }


def test_stages_fill_their_cells_and_more_concepts_go_on(lm, tmp_path, monkeypatch):
    path = tmp_path / "specialisation.csv"
    cfg = TeachingConfig(target=5.0, steps=2)
    assert specialisation(lm, path, ["golf", "japan", "baseball"], ["main"], SMALL, cfg) == path
    first = table(path)
    for method in ("own", "equal", "random", "permuted"):
        assert {("golf", method, "", "0.003", k) for k in ("own_cost", "other_cost", "gap")} <= first.keys()
    assert first["golf", "own", "", "0.003", "vectors"] == first["golf", "equal", "", "0.003", "vectors"] == 1
    assert 0 <= first["golf", "own", "", "0.003", "score"] and ("golf", "permuted", "", "0.003", "score") not in first
    assert 0 <= first["all", "own-equal", "", "0.003", "own_cost_sure"] <= 1
    assert first["golf", "overlap", "", "", "chance"] == 0.01

    module = importlib.import_module(f"{HERE}.masking")
    masked = []
    real = module._masked
    monkeypatch.setattr(
        module, "_masked", lambda bench, cell, *rest: (masked.append(cell.concept), real(bench, cell, *rest))
    )
    specialisation(lm, path, ["golf", "japan", "baseball", "astronomy"], ["main"], SMALL, cfg)
    assert set(masked) == {"astronomy"}
    again = table(path)
    assert all(again[k] == v for k, v in first.items() if k[0] == "golf")


def test_words_curves_and_teaching(lm, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module(f"{HERE}.teaching"), "RATES", (0.005,))
    path = tmp_path / "specialisation.csv"
    specialisation(lm, path, ["golf"], None, SMALL, TeachingConfig(target=5.0, steps=2))
    found = table(path)
    assert {("golf", m, "clues", "0.003", "own_cost") for m in ("own", "equal", "masked", "words")} <= found.keys()
    assert ("golf", "own-equal", "precise", "0.003", "own_cost") in found
    assert {("golf", m, "", "0.03", "gap") for m in ("own", "equal", "random")} <= found.keys()
    rates = dict.fromkeys(("own", "equal", "random"), "0.005") | dict.fromkeys(("complement", "all"), "0.0003")
    arms = {m: found["golf", m, "teaching", rate, "vectors"] for m, rate in rates.items()}
    assert arms["own"] == arms["equal"] == arms["random"] and arms["own"] + arms["complement"] == arms["all"]
    assert all(found["golf", m, "teaching", rate, "steps"] <= 2 for m, rate in rates.items())


def test_per_layer_takes_the_same_share_of_every_layer_beside_its_control(lm, tmp_path):
    path = tmp_path / "specialisation.csv"
    specialisation(lm, path, ["golf", "japan", "baseball"], ["per_layer"], SMALL)
    found, kept = table(path), contents(path).records
    for method in ("own", "equal"):
        layers = kept["golf", method, "per_layer", "0.003", "0"]["layers"]
        assert layers == [1] * lm.n_layers == [found["golf", method, "per_layer", "0.003", "vectors"] / 2] * 2
        assert ("golf", method, "per_layer", "0.003", "score") not in found
    mine, theirs = (found["golf", m, "per_layer", "0.003", "own_cost"] for m in ("own", "equal"))
    assert found["golf", "own-equal", "per_layer", "0.003", "own_cost"] == pytest.approx(mine - theirs, abs=1e-4)
    assert ("golf", "own-equal", "per_layer", "0.003", "gap") in found
    assert 0 <= found["all", "own-equal", "per_layer", "0.003", "own_cost_sure"] <= 1
    assert not any(attack == "" and method in ("own", "equal") for _, method, attack, *_ in found)


def test_a_stage_that_is_none_is_refused(lm, tmp_path):
    with pytest.raises(ConceptLabError, match="its stages are main, words, precise"):
        specialisation(lm, tmp_path / "s.csv", ["golf"], ["mask"], SMALL)


def test_teaching_sets_are_equal_where_they_should_be():
    scores = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    sets = teaching_sets(scores, scores.abs(), 0.1)
    assert [int(m.sum()) for m in sets.values()] == [10, 10, 10, 90, 100]
    assert torch.equal(sets["complement"], ~sets["own"])
