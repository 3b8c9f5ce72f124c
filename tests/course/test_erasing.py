"""Tables of notebooks 04 and 05, and layers that are replaced for a while."""

import torch

from conceptlab.core import Interval
from conceptlab.course import comparing, erasing
from conceptlab.edits import Dense, WeightEdit
from conceptlab.erasure import Feature
from conceptlab.experiments import LabTable


def number(value, low=None, high=None):
    return Interval(value, value if low is None else low, value if high is None else high, 20)


def table():
    cells = {}
    for concept, value in (("golf", 0.5), ("japan", 0.7), ("baseball", 0.3)):
        cells[concept, "original", "", ""] = {"known_target": number(20)}
        found = {"efficacy_known": number(value), "specificity_known": number(0.9), "left_target_known": number(0.4)}
        cells[concept, "pisces", "", ""] = found | {"mmlu_after": number(0.4), "mmlu_before": number(0.5)}
    for method, value in (("original", 3.0), ("pisces", 1.0)):
        cells["all", method, "direct", "margin"] = {"value": number(value), "lost": number(2, 1, 3)}
        cells["all", method, "relearning", "2"] = {"value": number(value), "share": number(0.2, 0.1, 0.3)}
        cells["all", method, "relearning_unrelated", "5"] = {"value": number(value)}
    names = ("taught", "erased", "attacked", "never", "never_attacked", "above_control")
    cells["velmora", "never_taught", "relearning", "5"] = {name: number(1.0) for name in names}
    return LabTable("m", cells, ("0",))


def test_tables_of_the_lab_say_what_is_missing():
    t = table()
    assert [row[:2] for row in erasing.methods_grid((t, LabTable("x", {}))).cells] == [
        ["PISCES", erasing.shown(t.mean("pisces", "efficacy_known"))]
    ]
    assert erasing.methods_grid((t, LabTable("x", {}))).cells[0][3:5] == ["-", "-"]
    traces = erasing.traces_grid(t, ("pisces", "words")).cells
    assert len(traces) == 1 and traces[0][1].startswith("0.40") and traces[0][2] == "-"
    assert "-0.10" in erasing.writing_grid(t, ("pisces",)).cells[0][3]
    golf = next(row for row in erasing.published_grid((t,)).cells if row[0] == "golf")
    assert golf == ["golf", "0.735 / 0.892", "0.50 / 0.90"]
    said = {control: erasing.differences_grid({"m": {control: x}}).cells[0][4] for control, x in {
        "other_features": number(0.1, 0.0, 0.2), "permuted_neurons": number(0.1, 0.05, 0.2),
        "random_direction": number(0.1, float("nan"), float("nan"))}.items()}  # fmt: skip
    assert list(said.values()) == ["holds 0", "above 0", "too few"]


def test_methods_are_compared_within_each_concept():
    t = table()
    for concept, words in (("golf", 0.4), ("japan", 0.7), ("baseball", 0.1)):
        t.cells[concept, "words", "", ""] = {"efficacy_known": number(words), "specificity_known": number(1.0)}
        t.cells[concept, "pisces", "fit", ""] = {"passed_gates": number(float(concept == "golf"))}
    t.cells["japan", "pisces", "", ""]["specificity_unseen_known"] = number(0.4)
    assert comparing.gates_grid((t, LabTable("x", {}))).cells == [["m", "3", "1"], ["x", "0", "0"]]
    pair = comparing.pairs_grid((t, LabTable("x", {})), (("pisces", "words"), ("pisces", "embedding"))).cells
    assert len(pair) == 1 and pair[0][1:3] == ["PISCES minus words alone", "3"]
    assert pair[0][3].startswith("0.10") and pair[0][4].startswith("-0.10") and pair[0][5] == "-"
    (means,) = comparing.unseen_means_grid(t, ("pisces", "words"), 1).cells
    assert (means[0], means[3][:4], means[4][:4], means[5]) == ("PISCES", "0.40", "0.50", "1")  # .9 seen, .4 unseen
    assert comparing.unseen_means_grid(t, ("pisces", "words")).cells == []  # too few concepts
    unseen = comparing.unseen_grid(t, "japan", ("pisces", "words")).cells
    assert [row[0] for row in unseen] == ["PISCES"] and unseen[0][3].startswith("0.40")


def test_all_means_of_a_row_are_over_the_same_concepts():
    """A concept without an unseen near domain counts in no column, or a mean over 16 stands beside one over 13."""
    t = table()
    for concept, unseen in (("golf", 0.6), ("japan", 0.8)):
        t.cells[concept, "pisces", "", ""]["specificity_unseen_known"] = number(unseen)
    (row,) = comparing.unseen_means_grid(t, ("pisces",), 2).cells
    assert row[1].startswith("0.60") and row[2].startswith("0.90") and row[3].startswith("0.70")  # not 0.50 of three
    assert row[4].startswith("0.20") and row[5] == "2"


def test_tables_count_concepts_axis_by_axis_where_these_differ():
    t = table()
    assert erasing.methods_grid((t,)).cells[0][-1] == "3"
    del t.cells["golf", "pisces", "", ""]["specificity_known"]
    assert erasing.methods_grid((t,)).cells[0][-1] == "3 (m: specificity 2)"
    for concept in ("golf", "japan", "baseball"):
        t.cells[concept, "words", "", ""] = {"efficacy_known": number(0.4), "specificity_known": number(0.8)}
    assert comparing.pairs_grid((t,), [("pisces", "words")]).cells[0][2] == "3 (specificity 2)"
    assert erasing.counted({"a": 0, "b": 4, "c": 4}) == "4" and erasing.counted({}) == "0"


def test_the_difference_between_models_has_its_own_row():
    x = number(0.1, 0.0, 0.2)
    means = {"small": {"other_features": x}, "large": {"other_features": x, "random_direction": x}}
    rows = erasing.differences_grid(means, number(0.2, 0.1, 0.3)).cells
    assert len(rows) == 4 and rows[-1][0] == "large minus small" and rows[-1][4] == "above 0"


def test_a_mean_of_cosines_is_not_above_one():
    t = table()
    for concept, cosine in (("golf", 1.0), ("japan", 0.9), ("baseball", 1.0)):
        t.cells[concept, "pisces", "", ""]["residue_cosine"] = number(cosine)
    assert "1.00]" in erasing.traces_grid(t, ("pisces",)).cells[0][4]


def test_attacks_of_the_table():
    t = table()
    assert erasing.not_tests_grid(t).cells[0][:2] == [
        "relearning unrelated",
        "a control: it shows what any training repairs",
    ]
    assert list(erasing.attack_bars(t)) == ["relearning", "relearning_unrelated"]  # the control stands last
    assert erasing.relearning_curves(t)["pisces"] == {0: number(1.0), 2: number(1.0)}
    assert list(erasing.relearning_curves(t)) == ["pisces", "original"]
    bars, gains = erasing.twin_bars(t)
    assert list(bars["relearning"]) == list(erasing.TWINS.values()) and gains["relearning"].value == 1.0
    assert erasing.counted_grid(t).cells[0][1:] == ["-"] * 5


def test_candidates_say_which_neurons_they_edit(tiny_llama):
    lm = tiny_llama()
    delta = torch.zeros(lm.d_model, lm.d_mlp)
    delta[:, [3, 7]] = 1.0
    edit = WeightEdit.of(lm, {lm.down_proj_name(1): Dense(delta)}, {})
    assert erasing.edited_neurons(edit) == {lm.down_proj_name(1): [3, 7]}
    f = Feature(1, 5, 1)
    rows = erasing.candidate_grid(lm, [f], [edit], torch.tensor([[-1.0, 0.0, 0.1]]), [f], ("a", "b", "c")).cells
    assert rows == [["1.5", "(no label)", "3, 7", "-1.00", "+0.00", "+0.10", "kept"]]
