"""Reading the lab's table: every number comes from the right cells, and what is missing is said to be missing."""

import math

import pytest

from conceptlab.experiments import LabTable, lab_table

CONCEPTS = {"golf": (0.5, 0.4), "japan": (0.7, 0.4), "rome": (0.3, 0.3), "cancer": (0.9, None)}


def row(concept, method, metric, value, low=None, high=None, attack="", budget="", seed="0"):
    low, high = (value if x is None else x for x in (low, high))
    numbers = {"value": str(value), "low": str(low), "high": str(high), "n": "20"}
    names = {"concept": concept, "method": method, "attack": attack, "budget": budget, "metric": metric}
    return {"experiment": "lab", "model": "m", "seed": seed} | names | numbers


def rows():
    found = []
    for i, (concept, (mine, other)) in enumerate(CONCEPTS.items()):
        found.append(row(concept, "original", "known_target", 20 if concept != "cancer" else 9))
        found.append(row(concept, "pisces", "efficacy_known", mine))
        found.append(row(concept, "pisces", "specificity_known", 0.9))
        found.append(row(concept, "pisces", "setting_mu", 16, attack="fit"))
        found += [row(concept, "other", "efficacy_known", other)] if other is not None else []
        found.append(row(concept, "pisces", "mmlu_after", 0.3 + 0.1 * i) | {"low": "0.2"})
        found.append(row(concept, "pisces", "mmlu_before", 0.3))
    found.append(row("japan", "pisces", "collateral_gold_golf", -0.2))
    found.append(row("japan", "pisces", "efficacy_known", 0.1, seed="1"))
    for method, value in (("original", 3.0), ("pisces", 1.0)):
        found.append(row("all", method, "value", value, attack="direct", budget="margin"))
        found.append(row("japan", method, "value", value, attack="direct", budget="margin"))
        found += [
            row("all", method, "value", value + x, attack="relearning", budget=b) for b, x in (("2", 0.1), ("5", 0.2))
        ]
        found.append(row("all", method, "value", 0.1, attack="language", budget="de"))
        found.append(row("all", method, "value", value, attack="relearning_unrelated", budget="5"))
        found.append(row("all", method, "value", 0.4, attack="logit_lens", budget="20"))
        found.append(row("all", method, "steps", 5, attack="relearning", budget="cost"))
    found.append(row("all", "pisces", "value", 2.9, attack="undoing", budget="4"))
    found.append(row("all", "pisces", "share", 0.4, 0.2, 0.6, attack="relearning", budget="5"))
    found.append(row("all", "pisces", "share", 0.1, -math.inf, 2.0, attack="language", budget="de"))
    return found


@pytest.fixture
def table():
    return lab_table("m", lambda *_: rows())


def test_numbers_are_those_of_the_first_seed_and_of_concepts_that_are_known(table):
    assert table.seeds == ("0", "1") and table.get("japan", "pisces", "efficacy_known").value == 0.7
    assert table.get("japan", "pisces", "nothing") is None and table.get("x", "y", "z") is None
    assert table.concepts() == ["golf", "japan", "rome"] and "cancer" in table.concepts(known=5)
    assert table.setting("japan", "pisces", "mu", 1.0) == 16 and table.setting("japan", "pisces", "tau", 0.5) == 0.5


def test_means_and_differences_are_paired_and_over_concepts(table):
    mean = table.mean("pisces", "efficacy_known")
    assert (mean.value, mean.n, mean.over) == (pytest.approx(0.5), 3, "concepts") and mean.low < 0.1 < 0.9 < mean.high
    assert table.gaps("pisces", "other", "efficacy_known") == pytest.approx({"golf": 0.1, "japan": 0.3, "rome": 0.0})
    assert table.difference("pisces", "other", "efficacy_known").value == pytest.approx(0.4 / 3)
    assert not table.mean("nobody", "efficacy_known").measurable
    assert not table.difference("pisces", "nobody", "efficacy_known").measurable
    assert table.change("pisces", "mmlu_after", "mmlu_before").value == pytest.approx(0.1)
    assert table.covered(("nobody", "other", "pisces")) == ["other", "pisces"]
    same = ("pisces", "efficacy_known")
    assert not table.correlation(same, same).measurable, "three concepts have no interval"
    assert table.covered(("other", "pisces"), at_least=4) == []
    assert table.points("pisces") == [[0.5, 0.9], [0.7, 0.9], [0.3, 0.9]]
    assert list(table.collateral("pisces")) == ["japan"] and set(table.collateral("pisces")["japan"]) == {"golf"}


def test_attacks_that_are_no_test_stand_apart(table):
    assert table.attacked() == ["pisces"] and table.n_attacked() == 1
    assert table.tests("pisces") == ["relearning"]
    apart = table.not_tests("pisces")
    assert sorted(sum(apart.values(), [])) == ["language", "relearning_unrelated", "undoing"]
    assert apart["the original itself fails under it"] == ["language"]


def test_the_number_at_a_budget_or_at_the_greatest(table):
    assert [x.value for x in table.strengths("pisces", "relearning", "value").values()] == [1.1, 1.2]
    assert table.under("pisces", "relearning", "value").value == 1.2
    assert table.under("pisces", "relearning", "value", budget="2").value == 1.1
    assert table.under("pisces", "relearning", "value", budget="7") is None
    assert table.under("pisces", "language", "share") is None, "a share without bounds is none"
    assert table.under("pisces", "gcg", "value") is None


def test_an_empty_table_answers_nothing_and_stops_nobody():
    empty = lab_table("m", lambda *_: [])
    assert empty == LabTable("m", {}, ()) and empty.concepts() == [] and empty.attacked() == []
    assert empty.tests("pisces") == [] and empty.not_tests("pisces") == {} and empty.points("pisces") == []
