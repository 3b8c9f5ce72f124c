"""Notebook 06's tables and sentences: made from whatever a lab table holds, on their basis, without a missing cell."""

import math
from contextlib import nullcontext
from dataclasses import asdict

import pytest
import torch

from conceptlab.core import Cell, ConceptLabError, Interval, Store
from conceptlab.experiments import (
    FictionTable,
    FormTable,
    LabView,
    closing_rows,
    curve_reading,
    differences,
    form_gap,
    lab_page,
    matched_rows,
    pool_for,
    relearning_tally,
    residue_points,
    residue_reading,
    robustness_rows,
    rounding_reading,
    scale_to,
    tallies,
    tally,
    verdict,
)
from conceptlab.experiments.curves import Point

SCALES = (0.5, 1.0)
COST = {"pisces": 0.1, "gradient_difference": 0.9, "npo": 1.0, "rocr": 0.4, "random_norm": 0.8}  # of a nat


def one(x):
    return Interval(x, x - 0.1, x + 0.1, 12)


def filled(path, concepts, methods=tuple(COST), spread=0.1):
    """A lab table: each method takes 1 nat per scale and costs the others its share of it."""
    generator = torch.Generator().manual_seed(0)

    def noise():
        return spread * torch.randn(12, generator=generator)

    with Store(path, experiment="lab", model="m", settings={}) as store:
        for concept in concepts:
            for m in methods:
                scores = {"efficacy": one(0.8), "efficacy_known": one(0.8), "residue_cosine": one(0.99)}
                store.add(Cell(concept, m), scores | ({"left_cloze": one(0.5)} if m == "npo" else {}))
                for scale in SCALES:
                    lost = {
                        "target": 2 * scale + noise(),
                        "neighbour": 2 * scale * COST[m] + noise(),
                        "general": noise(),
                    }
                    attacked = {"relearning": [[2.0] * 12, [2.0 - COST[m] * scale] * 12]}
                    point = Point(scale, {k: x.tolist() for k, x in lost.items()}, attacked)
                    store.add(Cell(concept, m, "curve", f"{scale:g}"), {"possible": one(1)}, record=asdict(point))
        return store.finish()


def test_methods_stand_in_the_order_of_what_they_cost_the_neighbour(tmp_path):
    view = LabView.read("m", filled(tmp_path / "lab_m.csv", ["japan"]))
    at = view.at(view.common_loss())
    rows = matched_rows(view, at)
    assert [row[0] for row in rows] == ["pisces", "rocr", "gradient_difference", "npo", "random_norm"]
    assert rows[0][4] == lab_page.EMPTY and all(len(row) == 8 for row in rows)
    found = differences(view, at, "lost_neighbour", "fine-tuning")
    assert set(found) == {"gradient_difference", "npo"} and all(x.low > 0 for x in found.values())
    assert any("surely more than under PISCES with 2" in line for line in tallies(view, at))
    pool = pool_for(view, at, 1.0)
    assert pool.value == found["gradient_difference"] and "gradient difference" in pool.label and pool.control > 0


def test_the_basis_says_what_one_concept_says(tmp_path):
    one_concept = LabView.read("m", filled(tmp_path / "lab_m.csv", ["japan"]))
    assert "1 concept (japan)" in one_concept.basis() and "nothing about other concepts" in one_concept.basis()
    assert one_concept.at(1.0)["npo"]["lost_neighbour"].over == "questions"
    many = LabView.read("m", filled(tmp_path / "lab_n.csv", ["japan", "golf", "cancer"]))
    assert many.basis() == "3 concepts: intervals are over concepts"
    assert many.at(1.0)["npo"]["lost_neighbour"].over == "concepts" and many.at(1.0)["npo"]["n_concepts"].value == 3
    assert many.points("npo", "neighbour")[0][0].over == "concepts"


def test_methods_are_compared_on_concepts_that_fine_tuning_has(tmp_path):
    """Not a mean over two concepts beside a mean over one."""
    path = filled(tmp_path / "lab_m.csv", ["japan"])
    with Store(path, experiment="lab", model="m", settings={}) as store:
        store.add(Cell("golf", "pisces"), {"efficacy": one(0.2), "efficacy_known": one(0.2)})
        store.finish()
    whole = LabView.read("m", path)
    fair = whole.compared()
    assert set(whole.concepts) == {"japan", "golf"} and fair.concepts == ["japan"]
    assert whole.over("efficacy", "pisces").value == pytest.approx(0.5)
    assert fair.over("efficacy", "pisces").value == pytest.approx(0.8) and fair.curves.keys() == whole.curves.keys()
    assert "1 concept" in fair.basis()
    assert whole.compared("run-time").concepts == whole.concepts, "where there is no such method nothing is left out"


def test_residue_and_robustness_are_told_as_they_stand(tmp_path):
    view = LabView.read("m", filled(tmp_path / "lab_m.csv", ["japan"]))
    at = view.at(1.0)
    assert residue_points(view)["fine-tuning"][0][1:] == pytest.approx((0.8, 0.99))
    assert "2 have an efficacy of at least 0.2" in residue_reading(view) and "2 of these leave" in residue_reading(view)
    rows = {row[0]: row for row in robustness_rows(view, at)}
    assert rows["npo"][5].startswith("0.50") and rows["pisces"][5] == lab_page.EMPTY
    assert "no fine-tuning method has met it" in rounding_reading(view)
    assert "surely more comes back than to PISCES with 2" in relearning_tally(view, at)


def test_claims_are_told_as_seen_or_not(tmp_path):
    view = LabView.read("m", filled(tmp_path / "lab_m.csv", ["japan"]))
    rows = closing_rows(view, view.at(1.0), 1.0)
    told = {claim: said for claim, _, said in rows}
    assert told["at equal loss fine-tuning costs the neighbour more than PISCES"].startswith(
        "seen: surely so with 2 of 2"
    )
    assert told["and a near domain that no choice has seen"] == "not computed yet"
    assert "seen: cosine above 0.9 with 2 of 2" in told["fine-tuning leaves the concept vectors where they were"]
    assert told["data to keep is not needed (FLAT no worse than gradient difference)"] == "not computed yet"
    assert all(len(row) == 3 and all(row) for row in rows)


def test_a_table_without_curves_says_so(tmp_path):
    with Store(tmp_path / "lab_m.csv", experiment="lab", model="m", settings={}) as store:
        store.add(Cell("japan", "pisces"), {"efficacy": one(0.5), "specificity": one(0.9)})
        path = store.finish()
    view = LabView.read("m", path)
    at = view.at(view.common_loss())
    assert at == {} and matched_rows(view, at) == [] and "no strength curves" in curve_reading(view)
    assert pool_for(view, at, 1.0).value.value == pytest.approx(0.9)
    assert all("nothing can be said" in line for line in tallies(view, at))


def test_sentences_count_what_is_sure():
    found = {"a": Interval(1, 0.5, 2, 9), "b": Interval(-1, -2, -0.5, 9), "c": Interval(0, -1, 1, 9)}
    assert tally(found, "methods", "more", "less") == "Of 3 methods: more with 1, less with 1, cannot be told with 1."
    assert "not seen" in verdict("x", found["c"]) and "other way" in verdict("x", found["b"])
    assert verdict("x", found["a"]).endswith(": seen.") and "not measured" in verdict("x", None)


# ---- strength at an effect --------------------------------------------------------------------------------
class Weaker:
    def __init__(self, size):
        self.size = size

    def scaled(self, factor):
        return Weaker(self.size * factor)

    def applied(self, lm):
        return nullcontext(lm)


@pytest.mark.parametrize("size", [0.5, 1.0, 6.0])
def test_an_edit_is_scaled_to_what_it_shall_leave(size):
    edit, scale, left = scale_to(Weaker(size), lambda e: 1 - e.size / 2, 0.5, halvings=6)
    assert left == pytest.approx(0.5, abs=0.03) and edit.size == pytest.approx(scale * size)


def test_an_edit_that_is_too_weak_comes_back_at_its_strongest():
    _, scale, left = scale_to(Weaker(0.1), lambda e: 1 - e.size, 0.0, most=3.0)
    assert scale == 3.0 and left == pytest.approx(0.7)
    with pytest.raises(ConceptLabError, match="largest scale"):
        scale_to(Weaker(1.0), lambda e: 0.0, 0.0, most=0.0)


# ---- forms ------------------------------------------------------------------------------------------------
def test_the_form_gap_is_what_is_lost_in_the_trained_form_beyond_the_others():
    rows = {"question": [[f"f{i}", 2.0, 1.0] for i in range(20)], "cloze": [[f"f{i}", 4.0, 3.0] for i in range(20)]}
    gap = form_gap(rows, "question")
    assert gap.value == pytest.approx(0.25) and gap.low == pytest.approx(0.25) and gap.over == "facts"
    assert form_gap(rows, "cloze").value == pytest.approx(-0.25)
    rows["clue"] = [[f"f{i}", 1.0, 1.0 if i else -9.0] for i in range(20)]
    assert form_gap(rows, "question").value == pytest.approx(0.5 - (0.25 + 0.5) / 2)


def test_a_form_table_gives_arrays_and_margins(tmp_path):
    with Store(tmp_path / "forms_m.csv", experiment="forms", model="m", settings={}) as store:
        for trained in ("question", "cloze"):
            store.add(Cell("japan", "npo", trained), {"possible": one(1), "scale": one(1), "left": one(0.5)})
            for asked in ("question", "cloze"):
                kept = 0.5 if asked == trained else 0.9
                record = {"shown": [["a", 2.0, 2 * kept], ["b", 2.0, 2 * kept]], "held_out": [["c", 1.0, 1.0]]}
                store.add(Cell("japan", "npo", trained, asked), {"facts": one(2), "kept_shown": one(kept)}, record)
        path = store.finish()
    table = FormTable.read("m", path)
    assert table.rows == [("npo", "question"), ("npo", "cloze")] and table.asked == ["question", "cloze"]
    assert table.kept["npo"].tolist() == [[0.5, 0.9], [0.9, 0.5]]
    before, after = table.margins("npo", "cloze")
    assert before["cloze"].tolist() == [2.0, 2.0, 1.0] and after["question"].tolist() == pytest.approx([1.8, 1.8, 1.0])
    assert "surely form-bound in 2 of 2" in table.reading() and "japan alone" in table.reading()


def test_a_table_of_invented_facts_says_who_reached_the_twin(tmp_path):
    with Store(tmp_path / "fiction_m.csv", experiment="fiction", model="m", settings={}) as store:
        store.add(Cell("velmora", "never_taught"), {"gap_held_out": one(3.0)})
        for method, left, removed in (("npo", 0.02, 0.5), ("eco", 0.6, 0.2)):
            found = {"left_shown": one(left), "removed_held_out": one(removed), "lost_neighbour": one(0.0)}
            store.add(Cell("velmora", method), found | {"lost_general": one(1.0)})
        path = store.finish()
    table = FictionTable.read("m", path)
    assert table.methods == ["npo"] and table.missed == ["eco"]
    assert [list(rows) for rows in table.panels.values()] == [["npo"]] * 3
    assert list(table.references.values()) == [1.0, 0.0, 0.0]
    assert "not reached by: eco" in table.reading() and "1 surely stop short" in table.reading()
    assert not math.isnan(table.numbers["npo", "lost_general"].value)
