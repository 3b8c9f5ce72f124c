"""Tables and the decision table: HTML with a plain-text fallback."""

import xml.etree.ElementTree as ET

import pytest

from conceptlab.core import ConceptLabError
from conceptlab.course import DECISIONS, Grid, decision_table


def test_a_table_is_html_and_aligned_text():
    grid = Grid([("a < b", 1, 0.12345), ("c", 20, 12345.6)], ["name & more", "n", "value"], "what it shows")
    root = ET.fromstring(grid._repr_html_())
    assert root.tag == "table" and root.find("caption").text == "what it shows"
    assert [th.text for th in root.find("thead/tr")] == ["name & more", "n", "value"]
    rows = root.findall("tbody/tr")
    assert [td.text for td in rows[0]] == ["a < b", "1", "0.123"] and rows[1][2].text == "12,346"
    assert "right" in rows[0][1].get("style") and "left" in rows[0][0].get("style")
    lines = repr(grid).splitlines()
    assert lines[0] == "what it shows" and lines[1].startswith("name & more") and lines[3].endswith("0.123")
    assert len(lines) == 5 and lines[3].index(" 1 ") == lines[4].index("20 ")


def test_a_row_that_does_not_fit_is_refused():
    with pytest.raises(ConceptLabError, match="Row 1 has 1 values for 2 columns"):
        Grid([(1, 2), (1,)], ["a", "b"])
    assert "<caption" not in Grid([], ["a"])._repr_html_() and repr(Grid([], ["a"])) == "a\n-"


def test_line_breaks_inside_a_cell_do_not_break_the_text():
    assert repr(Grid([("a\nb",)], ["x"])).splitlines()[-1] == "a b"


def test_an_interval_does_not_break_over_lines():
    cells = (
        "48.3% [31.4, 65.6]",
        "1.02 nats [0.395, 1.64] / 0.3 [-1, 2]",
        "not measurable (a, b)",
        "see [the page] now",
    )
    root = ET.fromstring(Grid([cells], list("abcd"))._repr_html_())
    shown = [td.text.replace("\N{NO-BREAK SPACE}", "_") for td in root.find("tbody/tr")]
    assert shown == ["48.3%_[31.4,_65.6]", "1.02 nats_[0.395,_1.64] / 0.3_[-1,_2]", *cells[2:]]
    assert "48.3% [31.4, 65.6]" in repr(Grid([cells], list("abcd"))), "plain text has plain spaces"


def test_the_decision_table_grows_through_the_course():
    whole, own = decision_table(), decision_table("00")
    assert len(whole.cells) == len(DECISIONS) and 0 < len(own.cells) < len(whole.cells)
    assert {d.notebook for d in DECISIONS} >= {"00", "01", "02", "03"}
    for d in DECISIONS:
        assert all(vars(d).values()) and d.method in repr(whole)
