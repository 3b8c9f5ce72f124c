"""The experiment of notebook 09 on a tiny model: its cells, that it goes on, and that no test chooses its layer."""

import importlib

import pytest
import torch

from conceptlab.core import read_table
from conceptlab.directions import Split, chosen_elsewhere, split_auroc, steering_plan
from conceptlab.experiments import directions as run
from conceptlab.experiments.directions import DirectionsConfig

SMALL = DirectionsConfig(n_stories=6, n_naive=8, n_mmlu=8, n_shuffles=6, n_resamples=20, n_steered=3, n_random=1)


def test_the_table_has_every_reading_control_and_dose_and_goes_on(tiny_llama, tmp_path, monkeypatch):
    lm, path = tiny_llama(n_layers=2), tmp_path / "directions.csv"
    from conceptlab.data import general_questions, mmlu_items

    mmlu_items(), general_questions("dev")  # from the usual cache, before it moves
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "cache"))
    module = importlib.import_module("conceptlab.experiments.directions")  # the name alone is the function
    few = {("added", "random 0", 1.0), ("multiplied", "naive", -1.0), ("multiplied", "random 0", -1.0)}
    monkeypatch.setattr(module, "steering_plan", lambda *a: {k: v for k, v in steering_plan(*a).items() if k in few})
    assert run(lm, path, SMALL) == path
    rows = read_table(path)
    cells = {(r["concept"], r["method"], r["attack"], r["budget"]) for r in rows}
    for name in ("naive", "mmlu", "trivia"):
        assert {(name, "difference", "", "1"), (name, "words", "", ""), (name, "counts", "", "")} <= cells
    for name in ("step-memory", "step-copy", "copy-memory"):
        assert {(name, "difference", way, "0") for way in ("templates", "within", "city", "month")} <= cells
        assert {(name, surface, "templates", "") for surface in ("counts", "words", "asked", "said")} <= cells
        assert (name, "transfer", "naive", "1") in cells and ("cosine", "naive", name, "1") in cells
    assert {("verdict", name, way, "") for name in ("trivia", "step-copy") for way in ("own", "naive")} <= cells
    steered = {("steering", "added", "random 0", "1"), ("steering", "multiplied", "naive", "-1")}
    assert steered | {("steering", "multiplied", "random 0", "-1")} <= cells
    assert all(0 <= float(r["value"]) <= 1 for r in rows if r["metric"] in ("auroc", "accuracy", "shuffled"))
    monkeypatch.setattr(module, "contrast_sets", None)  # would be called again if a reading were missing
    run(lm, path, SMALL)
    assert read_table(path) == rows


def test_a_layer_is_chosen_on_the_other_splits():
    positive = torch.tensor([True, False] * 6)
    first, second = torch.arange(12) < 6, torch.arange(12) >= 6
    splits = [Split(second, first), Split(first, second)]
    noise = torch.rand(12, generator=torch.Generator().manual_seed(0))
    good_on_first = torch.where(first, positive.float(), noise)
    good_on_second = torch.where(second, positive.float(), noise)
    scores = torch.stack([good_on_first, good_on_second])
    chosen = chosen_elsewhere(scores, positive, splits)
    assert torch.equal(chosen[first], good_on_second[first]) and torch.equal(chosen[second], good_on_first[second])
    found = split_auroc(chosen[None], positive, splits, list(range(12)), 10)[0]
    assert found.value == pytest.approx(0.5, abs=0.45) and found.value < 1
