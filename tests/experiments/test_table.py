"""Result tables that survive an interruption, and the sweep over layers on a tiny model."""

import json
import sys

import pytest
import torch

from conceptlab.core import ConceptLabError, Interval
from conceptlab.data import load_concept
from conceptlab.experiments import COLUMNS, ResultTable, layers, merge_tables, read_table
from conceptlab.experiments.layers import contrast_directions, turned


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.5)


def test_finished_cells_survive_an_interruption(lm, tmp_path):
    table = ResultTable("demo", lm, tmp_path)
    table.add({"target": Interval(-1.0, -2.0, 0.0, 7)}, "japan", "contrast", budget=3)
    again = ResultTable("demo", lm, tmp_path)
    assert not again.missing("japan", "contrast", budget=3)
    assert again.missing("japan", "contrast", budget=4) and again.missing("rome", "contrast", budget=3)
    assert not again.path.exists(), "an unfinished table is not taken for a finished one"
    again.add({"target": Interval(0.5, 0.1, 0.9, 7)}, "rome", "contrast", budget=3)
    path = again.close(k=5)
    rows = read_table(path)
    assert [row["concept"] for row in rows] == ["japan", "rome"] and tuple(rows[0]) == COLUMNS
    assert float(rows[0]["low"]) == -2.0 and rows[0]["n"] == "7"
    assert not again.partial.exists()
    assert json.loads(path.with_suffix(".json").read_text())["settings"] == {"k": 5}


def test_a_table_goes_on_with_the_settings_it_was_begun_with(lm, tmp_path):
    table = ResultTable("demo", lm, tmp_path)
    table.begin(k=5, grid=(1, 2))
    table.add({"m": Interval(1, 1, 1, 1)}, "japan")
    ResultTable("demo", lm, tmp_path).begin(k=5, grid=(1, 2))
    with pytest.raises(ConceptLabError, match=r"demo_tiny-llama.partial.csv was begun with other settings \(k\); fini"):
        ResultTable("demo", lm, tmp_path).begin(k=6, grid=(1, 2))
    table.partial.unlink()
    other = ResultTable("demo", lm, tmp_path)  # nothing was computed, so nothing can be mixed
    other.begin(k=6)
    other.add({"m": Interval(1, 1, 1, 1)}, "japan")
    other.close()
    assert {p.name for p in tmp_path.iterdir()} == {"demo_tiny-llama.csv", "demo_tiny-llama.json"}
    other.partial.write_text(other.path.read_text())
    with pytest.raises(ConceptLabError, match=r"How demo_tiny-llama.partial.csv was begun is not known; remove it"):
        ResultTable("demo", lm, tmp_path).begin(k=6)


def test_a_finished_table_is_not_replaced_by_one_of_fewer_concepts(lm, tmp_path):
    table = ResultTable("demo", lm, tmp_path)
    table.add({"m": Interval(1, 1, 1, 1)}, "japan")
    path = table.close(concepts=["japan", "golf"])
    before = path.read_text()
    with pytest.raises(ConceptLabError, match=r"other concepts \(golf\), which would be lost; write to another folder"):
        ResultTable("demo", lm, tmp_path).begin(concepts=["japan", "rome"])
    assert path.read_text() == before
    ResultTable("demo", lm, tmp_path).begin(concepts=["japan", "golf", "rome"])


def test_minutes_are_those_of_all_runs(lm, tmp_path):
    for concept in ("japan", "golf"):
        table = ResultTable("demo", lm, tmp_path)
        table._started -= 60 * 5
        table.begin(k=5)
        table.add({"m": Interval(1, 1, 1, 1)}, concept)  # then the run is interrupted
    note = json.loads(table.close(k=5).with_suffix(".json").read_text())
    assert note["minutes"] == 10.0


def test_another_seed_is_another_cell(lm, tmp_path):
    ResultTable("demo", lm, tmp_path, seed=0).add({"m": Interval(1, 1, 1, 1)}, "japan")
    assert ResultTable("demo", lm, tmp_path, seed=1).missing("japan")


def test_turning_directions_reflects_what_a_layer_writes(lm):
    Q = torch.linalg.qr(torch.randn(lm.d_model, 3, generator=torch.Generator().manual_seed(0)))[0]
    rows = lm.down_proj(1).clone()
    with turned(lm, 1, Q, 2.0).applied(lm):
        after = lm.down_proj(1).clone()
    assert torch.allclose(after @ Q, -(rows @ Q), atol=1e-5)
    rest = torch.eye(lm.d_model) - Q @ Q.T
    assert torch.allclose(after @ rest, rows @ rest, atol=1e-5)
    assert torch.equal(lm.down_proj(1), rows)


def test_the_sweep_fills_every_cell_and_resumes(lm, tmp_path, monkeypatch, capsys):
    path, sizes = tmp_path / "layers_tiny.csv", {"k": 2, "n_questions": 2, "n_texts": 6}
    experiment, change = sys.modules["conceptlab.experiments.layers"], []

    def counted(*arguments):
        change.append(arguments[1])
        if len(change) == 3:
            raise KeyboardInterrupt
        return turned(*arguments)

    monkeypatch.setattr(experiment, "turned", counted)
    with pytest.raises(KeyboardInterrupt):
        layers(lm, path, ["japan"], **sizes)
    assert not path.exists() and len(read_table(path)) == 6
    assert layers(lm, path, ["japan"], **sizes) == path and len(change) == 5
    assert "layers: 4 of 4 cells" in capsys.readouterr().out
    rows = read_table(path)
    assert {(r["method"], r["budget"]) for r in rows} == {(m, str(i)) for m in ("contrast", "random") for i in (0, 1)}
    assert {r["metric"] for r in rows} == {"target", "neighbour", "general"}
    layers(lm, path, ["golf"], **sizes)  # another concept is added to the finished table
    assert len(change) == 9 and {r["concept"] for r in read_table(path)} == {"japan", "golf"}
    lm.down_proj(1).data += 1
    with pytest.raises(ConceptLabError, match=r"layers_tiny.csv is a finished table .* \(fingerprint\)"):
        layers(lm, path, ["japan"], **sizes)
    layers(lm, path, ["japan"], **sizes, replace=True)
    assert {r["concept"] for r in read_table(path)} == {"japan"}
    directions = contrast_directions(lm, load_concept("japan"), 2, n_texts=6)
    for Q in (*directions["contrast"], *directions["random"]):
        assert torch.allclose(Q.T @ Q, torch.eye(2), atol=1e-5)


# ---- one table from several --------------------------------------------------------------------------------
def _part(lm, folder, cells, **settings):
    table = ResultTable("erasure", lm, folder)
    table._started -= 60 * len(cells)
    for concept, value in cells.items():
        table.add({"efficacy": Interval(value, 0.0, 1.0, 9), "norm": Interval(1.0, 1.0, 1.0, 1)}, concept, "pisces")
    return table.close(concepts=list(cells), **{"layers": [1]} | settings)


def test_merged_tables_hold_the_rows_and_the_concepts_of_all(lm, tmp_path):
    whole = _part(lm, tmp_path, {"japan": 0.5})
    parts = [_part(lm, tmp_path / name, {name: 0.25}) for name in ("golf", "uranium")]
    before, added = read_table(whole), [row for part in parts for row in read_table(part)]
    assert merge_tables(whole, parts) == whole and read_table(whole) == before + added
    note = json.loads(whole.with_suffix(".json").read_text())
    assert note["settings"] == {"concepts": ["japan", "golf", "uranium"], "layers": [1]} and note["minutes"] == 3.0
    new = merge_tables(tmp_path / "new" / "table.csv", parts)
    assert read_table(new) == added
    assert read_table(merge_tables(new, parts)) == added  # the same rows a second time


def test_tables_that_do_not_fit_are_refused_and_nothing_is_written(lm, tmp_path):
    whole = _part(lm, tmp_path, {"japan": 0.5})
    texts = [path.read_text() for path in (whole, whole.with_suffix(".json"))]
    wrong = {
        "differ in settings: layers": _part(lm, tmp_path / "a", {"golf": 0.5}, layers=[2]),
        "other numbers for japan, pisces": _part(lm, tmp_path / "b", {"japan": 0.6}),
        "no finished table": tmp_path / "missing.csv",
    }
    fitting = _part(lm, tmp_path / "c", {"golf": 0.5})
    for message, part in wrong.items():
        with pytest.raises(ConceptLabError, match=message):
            merge_tables(whole, [fitting, part])
    with pytest.raises(ConceptLabError, match="at least one"):
        merge_tables(tmp_path / "new.csv", [])
    attacked = ResultTable("attacks", lm, tmp_path).close()
    with pytest.raises(ConceptLabError, match="in one run"):
        merge_tables(whole, [attacked])
    assert [path.read_text() for path in (whole, whole.with_suffix(".json"))] == texts
