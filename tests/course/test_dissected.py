"""Tables of notebook 07 from the table of dissections: they grow with it, and a number that is not there is a dash."""

import pytest

from conceptlab.core import Interval
from conceptlab.course import dissected

WAYS = [("own/back/coefficients", "6-8"), ("gold/back/coefficients", "6-8")]
WINDOWS = ("0-2", "3-5", "6-8", "8-8", "0-8")


class Table(dict):
    """(concept, edit, way, layers, metric) -> number, as the experiments' reader answers."""

    def get(self, concept, edit, way, layers="", metric="kl"):
        return super().get((concept, edit, way, layers, metric), Interval.unmeasured("no"))

    def shares(self, concept, edit, way, metric="kl"):
        return {n: self.get(concept, edit, way, n, metric) for n in WINDOWS if (concept, edit, way, n, metric) in self}

    def concepts(self):
        return list(dict.fromkeys(k[0] for k in self if k[0] != "all"))


def one(x):
    return Interval(x, x - 0.1, x + 0.1, 12)


@pytest.fixture
def table():
    t = Table()
    for subject, x in (("japan", 0.5), ("golf", 0.05)):
        for edit in ("gradient_difference", "random_damage"):
            t[subject, edit, "gold/damage", "", "gold_lost"] = one(1.0)
            t[subject, edit, "own/damage", "", "relative_norm"] = one(0.01)
            t[subject, edit, "scale", "0.25", "gold_lost"] = one(0.1)
            t |= {(subject, edit, "span", "concept", m): one(v) for m, v in
                  (("share", 0.04), ("chance", 0.03), ("inside_lost", 0.0), ("outside_lost", 0.9))}  # fmt: skip
            for way in ("gold/back/coefficients", "gold/back/weights", "gold/back/both"):
                t |= {(subject, edit, way, n, "kl"): one(0.1 * i) for i, n in enumerate(WINDOWS)}
        t[subject, "gradient_difference-random", *WAYS[1], "kl"] = one(x)
    return t


def test_every_edit_and_subject_of_the_table_has_a_row(table):
    rows = dissected.damage_grid(table).cells
    assert [r[:2] for r in rows] == [[s, e] for s in ("japan", "golf") for e in ("training", "noise, equal loss")]
    assert rows[0][2:] == ["1.00%", "1.00", dissected.EMPTY, dissected.EMPTY]
    table["world_war_ii", "npo", "gold/damage", "", "gold_lost"] = one(0.7)
    assert dissected.damage_grid(table).cells[-1][:4] == ["world war ii", "NPO", dissected.EMPTY, "0.70"]
    assert dissected.edits_of(table, "world_war_ii") == ["npo"]


def test_differences_are_told_subject_by_subject_and_over_subjects(table):
    grid = dissected.gaps_grid(table, WAYS)
    assert [r[:3] for r in grid.cells] == [["training", "noise of equal loss", s] for s in ("japan", "golf")]
    assert grid.cells[0][3:] == ["", "0.50 [0.40, 0.60]"]
    told = dissected.gaps_reading(table, WAYS[1:])
    assert (
        told == "Training minus noise. gold, back, coefficients, 6-8: surely more in 1, surely less in 0 of 2 subjects."
    )
    for subject in ("cancer", "all"):
        table[subject, "gradient_difference-random", *WAYS[1], "kl"] = one(0.3)
    assert dissected.gaps_grid(table, WAYS).cells[-1][2] == "all 3 subjects"
    assert "of 3 subjects; over subjects 0.30" in dissected.gaps_reading(table, WAYS[1:])


def test_windows_that_grow_stand_beside_windows(table):
    table["japan", "gradient_difference", "gold/back/coefficients", "3-8", "kl"] = one(0.77)
    table["japan", "gradient_difference", "gold/back/coefficients", "0-5", "kl"] = one(0.33)
    grid = dissected.accumulated_grid(table, "japan", ("gradient_difference",))
    assert grid.columns == ["edit", "put back", "0-2", "3-5", "6-8"]
    rows = {r[1]: r[2:] for r in grid.cells}
    assert rows["coefficients, and of all later layers"] == ["0.40", "0.77", "0.20"]
    assert rows["coefficients, and of all earlier layers"] == ["0.00", "0.33", "0.40"]
    assert "attention" not in rows and rows["both, attention and coefficients"] == ["0.00", "0.10", "0.20"]


def test_the_change_is_divided_along_the_concepts_vectors_and_undone_in_stretches(table):
    row = dissected.span_grid(table).cells[0]
    assert row[2:5] == ["0.0400", "0.0300", dissected.EMPTY] and row[5:] == ["0.000", dissected.EMPTY, "0.900", "1.000"]
    parts = dissected.parts_grid(table)
    assert parts.columns[-3:] == ["undo 0-2", "undo 3-5", "undo 6-8"] and parts.cells[0][-3:] == [
        "0.00",
        "0.10",
        "0.20",
    ]
    assert parts.cells[0][2:6] == ["0.10", dissected.EMPTY, dissected.EMPTY, "1.00"]
