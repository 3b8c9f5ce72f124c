"""What notebook 08 reads from the table: means, the floor of the score, the same questions under foreign sets."""

import math

import pytest

from conceptlab.core import Contents
from conceptlab.experiments import MaskingTable, masking_table

NAMES = ("a", "b", "c", "d")


def row(concept, method, metric, value, n=10, budget="0.003", attack=""):
    numbers = {"value": str(value), "low": str(value - 1), "high": str(value + 1), "n": str(n)}
    key = {"concept": concept, "method": method, "attack": attack, "budget": budget, "metric": metric}
    return key | numbers


def made(rows, records=None):
    return MaskingTable(Contents({}, {("x",) * 5: rows}, records or {}))


def test_means_and_single_concepts_are_kept_apart():
    table = made(
        [row("all", "own", "gap", 2.0), row("a", "own", "gap", 1.0), row("a", "own", "gap", 9.0, budget="0.03")]
    )
    assert table.mean("own", "gap").value == 2.0 and table.mean("own", "gap").over == "concepts"
    assert {c: x.value for c, x in table.each("own", "gap").items()} == {"a": 1.0}
    assert table.mean("equal", "gap") is None and MaskingTable(None).mean("own", "gap") is None
    assert MaskingTable(None).score_parts("own") == {} and MaskingTable(None).same_questions("own") is None


def test_the_floor_is_what_equal_treatment_would_score():
    rows = [row(c, "own", m, v, n) for c in NAMES for m, v, n in (
        ("own_right", 0.5, 2), ("other_right", 0.5, 1), ("score", 0.3, 2))]  # fmt: skip
    parts = made(rows).score_parts("own")
    assert parts["score"].value == pytest.approx(0.3) and parts["signed"].value == 0
    # two questions: 0, .5 or 1 with chances 1/4, 1/2, 1/4; one question: 0 or 1
    assert parts["floor"].value == pytest.approx(0.5)


def test_a_question_is_compared_with_itself_under_foreign_sets():
    records = {(c, "known", "", "", "0"): {f"{c}1": [0.0, 1.0], f"{c}2": [0.0, 1.0]} for c in NAMES}
    order = {c: [f"{o}{i}" for i in (1, 2) for o in NAMES if o != c] for c in NAMES}
    for c in NAMES:  # own questions lose 3, foreign ones 1, and those of `d` one more whatever is masked
        hard = [float(q.startswith("d")) for q in order[c]]
        own = [3.0 + (c == "d")] * 2
        records[c, "own", "", "0.003", "0"] = {"own": own, "others": [1.0 + x for x in hard]}
    found = made([], records).same_questions("own")
    assert found.value == pytest.approx(2.0) and found.n == 8 and found.over == "questions"
    assert made([], records).same_questions("equal") is None


def test_arms_are_compared_where_the_loss_was_reached():
    rows = []
    for i, c in enumerate(NAMES[:3]):
        for arm, cost in (("own", 3.0), ("equal", 1.0 + i), ("random", 0.0)):
            reached = 0.0 if (arm, c) == ("random", "c") else 1.0
            for metric in ("steps", "right", "wrong", "certain_untaught", "drift", "own_cost", "other_cost", "reached"):
                value = reached if metric == "reached" else cost
                rows.append(row(c, arm, metric, value, budget="0.001", attack="teaching"))
    found = {(r[0], r[1]): r[2:] for r in made(rows).taught_rows()}
    assert found["own", "0.001"] == ("3", *["3.00"] * 7) and found["equal", "0.001"][3] == "2.00"
    assert found["random", "0.001"][0] == "2" and ("own minus random", "0.001") not in found
    assert found["own minus equal", "0.001"][1].startswith("1.00 [-1.48, 3.48]")  # t with 2 degrees of freedom
    assert MaskingTable(None).taught_rows() == []


def test_the_shipped_table_is_read():
    table = masking_table("smollm2-135m")
    assert len(table.each("own", "gap")) == 16 and math.isfinite(table.same_questions("own").low)
    assert masking_table("no-such-model").mean("own", "gap") is None
