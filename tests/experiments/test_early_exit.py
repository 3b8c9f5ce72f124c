"""The experiment of notebook 10 on a tiny model: what it writes, that it goes on, and its correlation of depths."""

import importlib

import pytest
import torch

from conceptlab.core import read_table
from conceptlab.experiments import early_exit as run
from conceptlab.experiments.fact_depths import correlations, fact_depths, loss_correlations


@pytest.fixture
def lm(tiny_llama, tmp_path, monkeypatch):
    from conceptlab.data import load_concept, vital_articles

    vital_articles(), load_concept("japan")  # from the usual cache, before it moves
    lm = tiny_llama(n_layers=5)
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "cache"))
    return lm


def small(tasks, **more):
    return (
        dict(
            tasks=tasks,
            alphas=(0.05,),
            n_seeds=1,
            n_passages=0,
            fact_concepts=(),
            erased=(),
            sizes={"truth": 60, "title": 60},
        )
        | more
    )


def test_a_task_fills_its_cells_and_another_goes_on(lm, tmp_path, monkeypatch):
    path = tmp_path / "early_exit.csv"
    assert run(lm, path, **small(["truth"])) == path
    rows = read_table(path)
    cells = {(r["concept"], r["method"], r["budget"]) for r in rows}
    assert {("truth", "exit", str(i)) for i in range(1, 6)} <= cells
    assert {("truth", k, "all") for k in ("consistent", "plain", "released", "blind", "confidence")} <= cells
    share = [float(r["value"]) for r in rows if r["metric"] == "memorised_here"]
    assert sum(share) == pytest.approx(1, abs=1e-3)
    module = importlib.import_module("conceptlab.experiments.early_exit")  # the name alone is the function
    done = []
    monkeypatch.setattr(module, "_task", lambda lm, store, name, *_: done.append(name))
    run(lm, path, **small(["truth", "title"]))
    assert done == ["title"] and read_table(path) == rows


def test_facts_have_depths_within_the_model(lm):
    from conceptlab.data import load_concept

    memorised, centre = fact_depths(lm, load_concept("japan"), 4)
    assert memorised.shape == centre.shape == (4,)
    assert ((memorised >= 1) & (memorised <= 5)).all()
    assert (centre.isnan() | ((centre >= 1) & (centre <= 5))).all()


def test_correlations_within_concepts_do_not_see_differences_between_them():
    generator = torch.Generator().manual_seed(0)
    records = [(torch.rand(2, 60, generator=generator) + 10 * i).tolist() for i in range(3)]
    found = correlations(records)
    assert found["rho"].value > 0.8 and found["rho"].low > 0.7
    assert found["rho_within"].low < 0 < found["rho_within"].high
    assert found["rho_shuffled"].low < 0 < found["rho_shuffled"].high


def test_losses_are_compared_within_concepts_and_against_what_the_answer_was_worth():
    generator = torch.Generator().manual_seed(0)
    records = []
    for shift in range(6):
        gold, a, b, c = torch.randn(4, 40, generator=generator).double()
        record = {"memorised": gold + a / 2 + 5 * shift, "gold": gold, "pisces": gold + b / 2 - 3 * shift}
        record["other_features"] = c
        records.append({k: v.tolist() for k, v in record.items()})
    found = loss_correlations(records)
    assert found["rho"].value < 0 < found["rho_within"].low
    for name in ("rho_given_gold", "rho_control", "rho_shuffled"):
        assert abs(found[name].value) < 0.3, name
