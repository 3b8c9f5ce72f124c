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
    attack_rows,
    bridged,
    closing_rows,
    curve_reading,
    differences,
    form_gap,
    form_rows,
    lab_page,
    margin_table,
    matched_rows,
    per_concept,
    pool_for,
    relearning_tally,
    residue_points,
    residue_reading,
    rounding_reading,
    scale_to,
    tally,
    tally_rows,
    unseen_reading,
    verdict,
)
from conceptlab.experiments.curves import Point
from conceptlab.experiments.oracle_page import form_verdict

SCALES = (0.5, 1.0)
COST = {"pisces": 0.1, "gradient_difference": 0.9, "npo": 1.0, "rocr": 0.4, "random_norm": 0.8}  # of a nat


def one(x):
    return Interval(x, x - 0.1, x + 0.1, 12)


def filled(path, concepts, methods=tuple(COST), spread=0.1, unseen=None):
    """A lab table: each method takes 2 nats per scale and costs the others its share of it.

    `unseen`: method -> its share on the unseen near domain; then margins are kept, too, half of the log-probability.
    """
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
                    lost |= {"unseen": 2 * scale * unseen[m] + noise()} if unseen else {}
                    attacked = {"relearning": [[2.0] * 12, [2.0 - COST[m] * scale] * 12]}
                    kept = {k: (x / 2).tolist() for k, x in lost.items()} if unseen else {}
                    point = Point(scale, {k: x.tolist() for k, x in lost.items()}, attacked, kept)
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
    kinds = {row[0]: row[1:] for row in tally_rows(view, at)}
    assert kinds["fine-tuning"][0] == "2 more, 0 less, 0 open" and kinds["fine-tuning"][1] == lab_page.EMPTY
    assert "gradient difference 0.8" in curve_reading(view, at, 1.0) and "pisces 0.1" in curve_reading(view, at, 1.0)
    assert "none." in bridged(view, 1.0) and "pisces (0.0 to 1.0)" in bridged(view, 0.5, most=0.5)
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
    rows = {row[0]: row for row in form_rows(view)}
    assert set(rows) == {"npo"} and rows["npo"][4].startswith("0.50") and rows["npo"][2] == lab_page.EMPTY
    back = {row[0]: row for row in attack_rows(view, at)}
    assert back["npo"][2] != lab_page.EMPTY and back["npo"][3:] == (lab_page.EMPTY,) * 3
    assert "no fine-tuning method has met it" in rounding_reading(view)
    assert "surely more comes back than to PISCES with 2" in relearning_tally(view, at)


def test_claims_are_told_as_seen_or_not(tmp_path):
    view = LabView.read("m", filled(tmp_path / "lab_m.csv", ["japan"]))
    rows = closing_rows(view, view.at(1.0), 1.0)
    told = {claim: said for claim, _, said in rows}
    first = "at equal loss each fine-tuning method costs the neighbour more than PISCES"
    assert told[first].startswith("seen with each: surely so with 2 of 2")
    control = "the control: other features in the same rows cost it more than PISCES"
    assert told[control] == told["more than PISCES with words on both sides"] == "not computed yet"
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
    assert at == {} and matched_rows(view, at) == [] and "no strength curves" in curve_reading(view, at, 1.0)
    assert pool_for(view, at, 1.0).value.value == pytest.approx(0.9)
    assert tally_rows(view, at) == [] and "not computed yet" in unseen_reading(view, at, 1.0)


UNSEEN = {"pisces": 0.9, "gradient_difference": 0.3, "npo": 1.3, "rocr": 0.2, "random_norm": 0.95}


def test_the_unseen_near_domain_decides_the_number_of_the_notebook(tmp_path):
    """PISCES was chosen to spare the neighbour, so the neighbour alone would flatter it."""
    view = LabView.read("m", filled(tmp_path / "lab_m.csv", ["japan"], unseen=UNSEEN))
    at = view.at(1.0)
    pool = pool_for(view, at, 1.0)
    assert pool.value == at["gradient_difference"]["lost_unseen_minus_pisces"] and pool.value.high < 0
    assert "unseen by any choice" in pool.label and "where the target lost" in pool.label
    assert "holds" not in pool.label and pool.control == pytest.approx(0.05, abs=0.1)
    told = unseen_reading(view, at, 1.0)
    assert "surely so with 2 (gradient difference, rocr)" in told and "Controls: random norm minus PISCES" in told
    assert "(margin)" in unseen_reading(view, at, 1.0, "margin_lost")
    kinds = {row[0]: row[1:] for row in tally_rows(view, at)}
    assert kinds["fine-tuning"][:2] == ("2 more, 0 less, 0 open", "1 more, 1 less, 0 open")
    assert kinds["localised"][4] == "0 more, 1 less, 0 open", "in margins"
    assert [row[0] for row in matched_rows(view, at)][:2] == ["rocr", "gradient_difference"]


def test_a_headline_whose_interval_holds_zero_or_its_control_says_so(tmp_path):
    view = LabView.read("m", filled(tmp_path / "lab_m.csv", ["japan"], unseen=UNSEEN | {"gradient_difference": 0.9}))
    assert "the interval holds zero" in pool_for(view, view.at(1.0), 1.0).label


def test_margins_stand_at_matched_loss_where_curves_kept_them(tmp_path):
    view = LabView.read("m", filled(tmp_path / "lab_m.csv", ["japan", "golf"], unseen=UNSEEN))
    caption, columns, rows = margin_table(view, view.at(1.0), 1.0)
    assert "where the target has lost 1 nats" in caption and columns[0] == "target" and len(rows[0]) == 3 + len(columns)
    assert {row[0]: row[3] for row in rows}["npo"].startswith("0.5") and {row[2] for row in rows} == {"2"}
    each = per_concept(view, 1.0)
    assert [row[0] for row in each] == ["japan"] * 5 + ["golf"] * 5 and len(each[0]) == 2 + len(lab_page.AT_LOSS)
    assert "2 concepts (japan and golf): intervals are over their questions" in caption
    with Store(tmp_path / "lab_n.csv", experiment="lab", model="m", settings={}) as store:
        found = {"efficacy": one(0.2), "margin_target": one(-0.7), "gold_target": one(-3.0), "margin_unseen": one(0.2)}
        store.add(Cell("japan", "npo"), found)
        path = store.finish()
    old = LabView.read("m", path)
    caption, columns, rows = margin_table(old, old.at(1.0), 1.0)
    assert "at the strength chosen on dev" in caption and len(rows[0]) == 3 + len(columns)
    assert rows[0][3].startswith("0.70 [0.60") and rows[0][5].startswith("-0.20") and rows[0][7].startswith("3.00")


def rounded(path):
    """Margins asked plainly and under both kinds of rounding, of the original and of two edits."""
    plain = torch.linspace(2, 4, 12)
    found = {  # method -> as it is, in four bits, in the format of the model's own file
        "original": (plain, plain / 2, plain), "npo": (plain - 1, plain / 2 - 1, plain),
        "pisces": (plain - 3, plain / 2 - 2, plain - 3),
    }  # fmt: skip
    with Store(path, experiment="lab", model="m", settings={}) as store:
        for method, (now, bits, own) in found.items():
            scores = {} if method == "original" else {"efficacy": one(0.8)}
            store.add(Cell("japan", method), scores or {"possible": one(1)})
            direct = {"labels": ["margin", "correct"], "values": [now.tolist(), (now > 0).float().tolist()]}
            store.add(Cell("japan", method, "direct", "cost"), {"steps": one(0)}, direct)
            record = {"labels": ["4-bit", "gguf"], "values": [bits.tolist(), own.tolist()]}
            store.add(Cell("japan", method, "quantisation", "cost"), {"steps": one(0)}, record)
        return store.finish()


def test_rounding_is_read_against_the_original_under_the_same_rounding(tmp_path):
    """In four bits the original loses, too: what comes back is not the last strength, which is the file's own grid."""
    view = LabView.read("m", rounded(tmp_path / "lab_m.csv"))
    rows = {row[0]: row[3:] for row in attack_rows(view, {})}
    assert [x[:4] for x in rows["npo"]] == ["1.00", "1.00", "0.00"] and [x[:4] for x in rows["pisces"]][1] == "2.00"
    told = rounding_reading(view)
    assert "own margin is 3.00 nats, 1.50 in four bits, 3.00 in the format" in told
    assert "four bits a gap to the equally rounded original is surely left with 1 (npo) of 1" in told
    assert "own format a gap to the equally rounded original is surely left with none of 1" in told
    claims = {claim: said for claim, _, said in closing_rows(view, {}, 1.0)}
    assert claims["rounding to four bits closes the gap that fine-tuning made"].startswith("not seen")
    assert claims["writing the model in the format of its own file closes it"].startswith("seen")
    assert view.attacked("quantisation")["npo"].value == pytest.approx(1), "the share under the last strength"


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
    assert before["cloze"].tolist() == [2.0, 2.0] and after["question"].tolist() == pytest.approx([1.8, 1.8])
    held = table.margins("npo", "cloze", "held_out")
    assert held[0]["cloze"].tolist() == [1.0], "facts that were shown and facts held out do not mix"
    assert table.kept_of("npo", "cloze", "question", [0, 1]).value == pytest.approx(0.9)
    assert table.held_rows()[0][:2] == ("npo", "question") and table.held_rows()[0][3] == "\u2013"
    assert table.beyond()["npo", "cloze"].value == pytest.approx(0.4)
    assert table.reading().count("bound to the form") == 4 and "japan alone" in table.reading()


def test_a_form_that_loses_under_every_training_is_not_bound(tmp_path):
    """It loses more than the other asked forms, and as much by training in them."""
    with Store(tmp_path / "forms_m.csv", experiment="forms", model="m", settings={}) as store:
        for trained in ("question", "clue"):
            store.add(Cell("japan", "npo", trained), {"possible": one(1), "scale": one(1), "left": one(0.5)})
            for asked, kept in (("question", 0.9), ("clue", 0.3)):
                record = {"shown": [[f"f{i}", 2.0, 2 * kept] for i in range(9)]}
                store.add(Cell("japan", "npo", trained, asked), {"facts": one(9), "kept_shown": one(kept)}, record)
        table = FormTable.read("m", store.finish())
    assert form_verdict(table.gaps()["npo", "clue"]) == "bound to the form"
    assert form_verdict(table.beyond()["npo", "clue"]).startswith("not bound")


def test_a_wide_interval_around_nothing_decides_nothing():
    assert form_verdict(Interval(0.0, -0.28, 0.2, 9)) == "cannot be told"
    assert form_verdict(Interval(0.0, -0.1, 0.1, 9)).startswith("not bound")
    assert form_verdict(Interval(-0.3, -0.4, -0.2, 9)) == "the reverse"
    assert form_verdict(Interval.unmeasured("no facts")) == "cannot be told"


def test_a_table_of_invented_facts_says_who_reached_the_twin(tmp_path):
    with Store(tmp_path / "fiction_m.csv", experiment="fiction", model="m", settings={}) as store:
        store.add(Cell("velmora", "never_taught"), {"gap_held_out": one(3.0), "accuracy_never_shown": one(0.15)})
        for method, left, removed in (("npo", 0.02, 0.5), ("eco", 0.6, 0.2)):
            found = {"left_shown": one(left), "removed_held_out": one(removed), "lost_neighbour": one(0.0)}
            store.add(Cell("velmora", method), found | {"lost_general": one(1.0), "accuracy_shown": one(0.7)})
        path = store.finish()
    table = FictionTable.read("m", path)
    assert table.methods == ["npo"] and table.missed == ["eco"]
    assert [list(rows) for rows in table.panels.values()] == [["npo"]] * 3
    assert list(table.references.values()) == [1.0, 0.0, 0.0]
    assert "1 method reaches the twin's log-probability" in table.reading()
    assert "not reached by: eco" in table.reading() and "1 of 1 surely stay short" in table.reading()
    assert "npo is there by log-probability alone: 0.70" in table.reading() and table.still_answered() == ["npo"]
    assert [row[0] for row in table.accuracy_rows()] == ["npo", "eco", "twin (never taught)"]
    assert not math.isnan(table.numbers["npo", "lost_general"].value)
