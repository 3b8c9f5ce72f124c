"""The benchmark harness, on benchmarks made here."""

import csv
import time

import pytest

import harness
from harness import Case, measure

GOOD = """
from harness import Case
def bench_fast():
    yield Case("load_tiny", ours=lambda: 1.0, peer=lambda: 4.0, target=2, peer_scale=10)
    yield Case("load_rate", lambda: 30.0, lambda: 10.0, "tokens/s", 5, lower_is_better=False)
"""
BAD = "def bench_broken():\n    raise RuntimeError('no model')\n    yield\n"


def test_runs_alternate_and_medians_are_taken():
    calls = []
    numbers = iter([9.0, 1.0, 2.0, 3.0, 100.0, 2.0])

    def ours():
        calls.append("o")
        return next(numbers)

    row = measure(Case("edit", ours, lambda: calls.append("p") or 6.0))
    assert "".join(calls) == "op" + "op" + "po" + "op" + "po" + "op"
    assert (row.ours, row.peer, row.ratio) == (2.0, 6.0, 3.0)


def test_time_is_measured_when_nothing_is_returned():
    row = measure(Case("edit", lambda: time.sleep(0.001), lambda: time.sleep(0.02)))
    assert row.unit == "s" and 0.001 <= row.ours < row.peer and row.ratio > 1


def test_fewer_than_five_runs_are_refused():
    with pytest.raises(ValueError, match="at least 5"):
        measure(Case("edit", lambda: 1.0, lambda: 1.0, runs=3))


def test_a_failing_benchmark_does_not_stop_the_others(tmp_path, capsys):
    (tmp_path / "bench_a.py").write_text(BAD)
    (tmp_path / "bench_b.py").write_text("import nothing_of_that_name")
    (tmp_path / "bench_load.py").write_text(GOOD)
    table = tmp_path / "build" / "bench.csv"
    assert harness.main(tmp_path, table, []) == 1
    out = capsys.readouterr().out
    assert "threads" in out and "bench_a.bench_broken: FAILED" in out and "bench_b: FAILED" in out
    assert "ours 1 s, peer 40 s, ratio 40.00, target 2\n" in out and "target 5 MISSED" in out
    rows = list(csv.DictReader(table.open()))
    assert [row["name"] for row in rows] == ["load_tiny", "load_rate"]
    assert list(rows[0]) == ["name", "ours", "peer", "unit", "ratio", "target"]
    assert [float(row["ratio"]) for row in rows] == [40.0, 3.0]
    assert harness.main(tmp_path, table, ["load"]) == 0
    assert harness.main(tmp_path, table, ["other"]) == 1
    assert "There are: a, b, load" in capsys.readouterr().err
