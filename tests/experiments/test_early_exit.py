"""The experiment of notebook 10 on a tiny model: what it writes, that it goes on, and its correlation of depths."""

import importlib

import pytest
import torch

from conceptlab.core import Cell, ConceptLabError, Interval, Store, read_table
from conceptlab.experiments import centre_rows
from conceptlab.experiments import early_exit as run
from conceptlab.experiments import fact_depths as fact_depths_module
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


def test_concepts_and_parts_can_be_chosen_as_the_command_line_does(lm, tmp_path, monkeypatch):
    module = importlib.import_module("conceptlab.experiments.early_exit")
    asked = []
    for name in ("centres_of_facts", "losses_of_facts"):
        monkeypatch.setattr(module, name, lambda lm, store, concepts, *_, name=name: asked.append((name, [*concepts])))
    path = tmp_path / "early_exit.csv"
    run(lm, path, **small(["truth"]))
    asked.clear()
    run(lm, path, **small(["title"]), concepts=["japan"], methods=["centres", "losses"])
    assert asked == [("centres_of_facts", ["japan"]), ("losses_of_facts", ["japan"])]
    assert not any(r["concept"] == "title" for r in read_table(path))
    with pytest.raises(ConceptLabError, match="its parts are tasks, tokens, centres, losses"):
        run(lm, path, **small(["truth"]), methods=["facts"])


def test_where_facts_are_erased_is_read_from_records_of_all_concepts(tmp_path, monkeypatch):
    monkeypatch.setattr(fact_depths_module, "table_path", lambda *_: tmp_path / "t.csv")
    assert centre_rows("m") == []
    cells = {Cell("facts", c): [[1.0, 5.0, 9.0, 12.0], [2.0, 3.0, 4.0, 6.0]] for c in ("golf", "japan")}
    with Store(tmp_path / "t.csv", experiment="early_exit", model="m") as store:
        store.add_all({cell: {"memorised": Interval(1, 1, 1, 4)} for cell in cells}, cells)
        store.finish()
    rows = centre_rows("m")
    assert [r[0] for r in rows] == ["golf", "japan", "all, Spearman within concepts", "all, facts shuffled"]
    assert rows[0][1:3] == ("4", rows[0][2]) and rows[0][2].startswith("6.8 [") and rows[0][4].startswith("+1.00")
    assert rows[2][1] == "8" and len({len(r) for r in rows}) == 1
