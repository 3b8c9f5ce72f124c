"""The grid of concepts and methods on a tiny model, and its resumption."""

import sys
from dataclasses import replace

import pytest
import torch

from conceptlab.erasure import workshop as library
from conceptlab.experiments import ResultTable, erasure, read_table
from conceptlab.experiments.erasure import COMPARED
from sizes import FINAL, SMALL

module = sys.modules["conceptlab.experiments.erasure"]  # the package's `erasure` is the function


@pytest.fixture
def lm(tiny_llama, monkeypatch, tmp_path):
    monkeypatch.setattr(library, "cache_dir", lambda: tmp_path / "cache")
    return tiny_llama(initializer_range=0.5, tie_word_embeddings=True)


def test_every_method_fills_a_cell_and_a_second_run_adds_nothing(lm, saes, tmp_path, monkeypatch):
    before = {n: p.detach().clone() for n, p in lm.hf.named_parameters()}
    table = ResultTable("erasure", lm, tmp_path)
    erasure(lm, table, ["golf"], saes=saes, cfg=SMALL, test=FINAL)
    assert all(torch.equal(p, before[n]) for n, p in lm.hf.named_parameters())
    rows = read_table(table.path)
    cells = {m: {r["metric"]: r for r in rows if r["method"] == m} for m in COMPARED}
    assert {r["method"] for r in rows} == {"original", *COMPARED} and {r["concept"] for r in rows} == {"golf"}
    original = {r["metric"]: float(r["value"]) for r in rows if r["method"] == "original"}
    assert 0 <= original["known_target"] <= 4 and original["accuracy_target"] == original["known_target"] / 4
    assert original["features"] >= 1 and original["reach"] > 0 and "accuracy_cloze" in original
    for method, found in cells.items():
        assert float(found["possible"]["value"]) == 1, method
        assert ("left_cloze" in found) is (method in FINAL.forms_of)
        beside = {"repetition", "mmlu_before", "mmlu_after", "gold_mmlu"}
        assert (beside & set(found)) == (beside if method in FINAL.writing_of else set())
        wanted = {"efficacy", "specificity", "coherence", "overall", "gold_target", "margin_general"}
        assert wanted | {"accuracy_target_before", "accuracy_target_after", "relative_norm"} <= set(found), method
        assert float(found["accuracy_target_before"]["value"]) == float(
            cells["pisces"]["accuracy_target_before"]["value"]
        )
        for axis in ("efficacy", "specificity", "coherence", "overall"):
            row = found[axis]
            assert 0 <= float(row["low"]) <= float(row["high"]) <= 1
    norms = {m: float(cells[m]["norm"]["value"]) for m in COMPARED}
    assert norms["random_norm"] == pytest.approx(norms["pisces"], rel=1e-3)
    assert norms["random_features"] == pytest.approx(norms["pisces"], rel=1e-3)
    assert float(cells["embedding"]["rows_touched"]["value"]) > 0
    assert {"setting_tau", "setting_mu"} <= set(cells["pisces"]) and "setting_n" in cells["needle"]
    for residue in ("residue_cosine", "residue_rows_cosine"):
        assert float(cells["embedding"][residue]["value"]) == pytest.approx(1)  # no value vector was touched
    assert float(cells["pisces"]["residue_rows_cosine"]["value"]) < 0.999

    monkeypatch.setattr(module, "Erasure", None)  # would fail if anything were computed again
    table.partial.write_text(table.path.read_text())
    table._keep_note()  # as an interrupted run leaves it
    erasure(lm, ResultTable("erasure", lm, tmp_path), ["golf"], saes=saes, cfg=SMALL, test=FINAL)
    assert read_table(table.path) == rows


def test_what_the_original_writes_is_measured_before_the_edit(lm, saes, tmp_path, monkeypatch):
    whole = {n: p.detach().clone() for n, p in lm.hf.named_parameters()}
    real, edited = module.behaviour, []

    def spy(lm):
        edited.append(any(not torch.equal(p, whole[n]) for n, p in lm.hf.named_parameters()))
        return real(lm, n_tokens=2)

    monkeypatch.setattr(module, "behaviour", spy)
    table = ResultTable("erasure", lm, tmp_path)
    erasure(lm, table, ["golf"], ("pisces",), saes, SMALL, FINAL)
    assert edited == [False, True]


def test_a_method_that_is_not_possible_is_said_to_be(lm, saes, tmp_path):
    cfg = replace(SMALL, ember=replace(SMALL.ember, mass_ratio=1e9))
    table = ResultTable("erasure", lm, tmp_path)
    erasure(lm, table, ["golf"], ("embedding",), saes, cfg, FINAL)
    rows = [r for r in read_table(table.path) if r["method"] != "original"]
    assert [(r["metric"], float(r["value"])) for r in rows] == [("possible", 0.0)]
