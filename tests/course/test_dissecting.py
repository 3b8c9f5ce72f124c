"""Tables of notebook 07 about forgotten skills, from a table written by hand."""

import pytest

from conceptlab.core import data_dir, results, row_interval
from conceptlab.course.dissecting import forgetting_grid, spill_grid


def row(task, method, asked, draw, metric, value):
    keys = {"concept": task, "method": method, "attack": asked, "budget": draw, "metric": metric}
    return keys | {"value": str(value), "low": str(value - 0.1), "high": str(value + 0.1), "n": "20", "seed": "0"}


@pytest.fixture
def rows():
    found = []
    for task, other in (("verb", "topic"), ("topic", "verb")):
        for metric, x in (("accuracy_trained", 0.9), ("accuracy_heldout", 0.8), ("probe", 0.7), ("letters", 0.4)):
            found.append(row(task, "original", "", "" if metric == "letters" else "all", metric, x))
        for k, x in (("0", 0.2), ("1", 0.3)):
            found.append(row(task, "random", "", k, "probe_shuffled", x))
        pooled = {"accuracy_trained": 0.3, "accuracy_heldout": 0.35, "probe": 0.65, "lost_right_heldout": 0.45}
        for metric, x in pooled.items():
            found.append(row(task, "random", "", "all", metric, x))
        found.append(row(task, "random", other, "all", "lost_right", 0.11))
    return [*found, row("verb", "random", "", "all", "forget_gap_right", 0.75)]


def test_the_original_stands_above_what_was_trained_from_it(rows):
    grid = forgetting_grid("tiny", rows)
    assert [c[:2] for c in grid.cells] == [
        ["verb", "original"], ["verb", "random labels"], ["topic", "original"], ["topic", "random labels"],
    ]  # fmt: skip
    assert grid.cells[0][2:4] == ["0.90 [0.80, 1.00]", "0.80 [0.70, 0.90]"]
    assert grid.cells[1][4] == "0.75 [0.65, 0.85]" and grid.cells[3][4] == "not measurable"
    assert grid.cells[1][6] == "0.25"  # mean over the draws


def test_the_diagonal_is_what_a_skill_lost_itself(rows):
    grid = spill_grid("tiny", rows)
    assert grid.columns[1:] == ["verb", "topic"]
    assert grid.cells[0][1].startswith("0.45") and grid.cells[0][2].startswith("0.11")
    assert grid.cells[1][1].startswith("0.11") and grid.cells[1][2].startswith("0.45")


def test_a_table_that_is_not_there_is_an_empty_grid():
    assert forgetting_grid("tiny", []).cells == [] == spill_grid("tiny", []).cells


def test_numbers_in_the_prose_of_the_notebook_are_those_of_the_table():
    source = (data_dir().parent / "notebooks" / "07_dissecting_unlearning.ipynb").read_text(encoding="utf-8")
    rows = results("skills", "smollm2-135m")
    for skill in ("sentiment", "two_hops", "topic"):
        (lost,) = (r for r in rows if (r["concept"], r["method"], r["attack"], r["budget"], r["metric"]) == (
            skill, "random", "", "all", "lost_probe"))  # fmt: skip
        assert str(row_interval(lost)).replace("0.", ".") in source, skill
    fitted = [float(r["value"]) for r in rows if r["method"] == "random" and r["metric"] == "fitted"]
    assert f"{100 * min(fitted):.0f} to {100 * max(fitted):.0f} %" in source
