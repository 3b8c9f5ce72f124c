"""Tables of notebook 08 over models: every stage that a table holds is shown, and what is missing is named."""

import pytest

from conceptlab.core import Contents
from conceptlab.experiments import (
    MaskingTable,
    attempts_page,
    ladder_page,
    shares_page,
    taught_page,
    words_page,
)

NAMES = ("a", "b", "c", "d", "e")


def row(concept, method, metric, value, low=None, budget="0.003", attack="", n=10):
    numbers = {"value": str(value), "low": str(value - 1 if low is None else low), "high": str(value + 1), "n": str(n)}
    return {"concept": concept, "method": method, "attack": attack, "budget": budget, "metric": metric} | numbers


def made(rows, records=None):
    return MaskingTable(Contents({"model": "m"}, {("x",) * 5: rows}, records or {}))


def test_every_attempt_counts_points_and_intervals():
    rows = [row(c, "own-equal", "own_cost", 1.0, 0.5 if c != "e" else -0.5) for c in NAMES]
    rows += [row(c, "own-equal", "own_cost", 0.5 if c == "a" else -0.5, -1, attack="per_layer") for c in NAMES]
    found, columns, caption = attempts_page({"m": made(rows), "n": MaskingTable(None)})
    assert [r[1] for r in found] == ["all layers ranked together", "the same share of every layer"]
    assert found[0][3:] == ("5 of 5", "4 of 5", "reached") and found[1][3:] == ("1 of 5", "0 of 5", "missed")
    assert len(columns) == len(found[0]) and "on all known questions (m, n)" in caption and "together (n)" in caption


def test_shares_stand_in_order_with_the_controls_that_could_be_drawn():
    rows = [row("all", m, k, 1.0, budget=s, n=5) for s in ("0.003", "0.03", "0.0003")
            for m, k in (("own", "own_cost"), ("own", "other_cost"))]  # fmt: skip
    rows += [row("all", "own-equal", "own_cost", 0.5, budget="0.003", n=4), row("all", "equal", "own_cost", 0.5, n=4)]
    table = made(rows)
    found, columns, caption = shares_page({"m": table})
    assert [r[1] for r in found] == ["0.03 %", "0.3 %", "3 %"] and [r[6] for r in found] == ["0", "4", "0"]
    assert table.curves()["own"][1] == (0.003, 1.0, 0.0, 2.0) and len(table.curves()["equal"]) == 1
    assert "random" not in table.curves() and len(columns) == len(found[0]) and "not measured" not in caption
    assert "curves" in shares_page({"m": made(rows[2:4])})[2]


def test_word_detection_is_shown_as_soon_as_one_concept_has_it():
    rows = [row("a", m, "own_cost", v, attack="clues") for m, v in (("own", 1.0), ("equal", 0.5), ("own-equal", 0.5))]
    rows += [row(c, "own", "own_cost", 2.0) for c in NAMES]
    found, columns, caption = words_page({"m": made(rows), "n": MaskingTable(None)})
    assert found[0] == ("m", "the concept's questions", "2.00 [2.00, 2.00]", "5", "1.00", "1")
    assert found[-1][1:] == ("own minus equally active", "-", "0", "0.50", "1") and len(columns) == 6
    assert "--methods words (n)" in caption


def test_arms_say_at_how_many_rates_they_compare():
    rows = []
    for c in NAMES[:3]:
        for arm in ("own", "random"):
            for rate in ("0.003", "0.001"):
                for m in ("steps", "right", "wrong", "certain_untaught", "drift", "own_cost", "other_cost", "reached"):
                    reached = float(arm == "own" or rate == "0.003")
                    rows.append(row(c, arm, m, reached if m == "reached" else 0.3, budget=rate, attack="teaching"))
    found, columns, caption = taught_page({"m": made(rows), "n": MaskingTable(None)})
    assert {len(r) for r in found} == {len(columns)} and caption.endswith("1 of 3 rates (m)")
    assert taught_page({})[2].startswith("No table")


def test_the_shipped_tables_make_a_ladder():
    found, columns, caption = ladder_page()
    assert {"smollm2-135m", "gemma3-270m"} <= {r[0] for r in found} and {len(r) for r in found} == {len(columns)}
    assert [r[1] for r in found] == sorted(r[1] for r in found)
    assert len(found) > 2 or "no trend" in caption
    assert all(r[3].endswith("]") for r in found)


def test_where_the_set_lies_is_known_from_its_records():
    table = made([], {("a", "own", "", "0.003", "0"): {"own": [], "others": [], "layers": [0, 3]}})
    assert table.n_layers == 2 and table.name == "m"
    assert MaskingTable(None).n_layers == 0 and MaskingTable(None).name == ""
    with pytest.raises(KeyError):
        made([]).curves()["own"]
