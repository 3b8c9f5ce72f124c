"""What a lab table holds of the registry and how unequally methods were tuned: sentences of notebook 06."""

from dataclasses import asdict

import pytest

from conceptlab.core import Cell, Interval, Store
from conceptlab.experiments import (
    LabView,
    beside_rows,
    closing_rows,
    coverage,
    coverage_rows,
    overshoot_reading,
    tuning_reading,
    unreached,
)
from conceptlab.experiments.curves import Point


def one(x, width=0.1):
    return Interval(x, x - width, x + width, 12)


@pytest.fixture
def view(tmp_path):
    """npo stands at the end of its grid on golf; gradient ascent never takes a nat; words were tried at two settings;
    DPO overshoots."""
    costs = {"pisces": 0.1, "npo": 0.9, "dpo": 0.05, "gradient_ascent": 0.9, "pisces+words_both": 0.02}
    with Store(tmp_path / "lab_m.csv", experiment="lab", model="m", settings={}) as store:
        for concept in ("japan", "golf"):
            for m in (*costs, "words_both"):
                below = {"dpo": 2.0, "npo": -2.0}.get(m, 0.0)
                scores = {"efficacy": one(0.8), "efficacy_known": one(0.8), "depth": one(0.3)}
                store.add(Cell(concept, m), scores | {"below_unasked": one(below), "coherence_known": one(0.9)})
                rate = 2.0 if (m, concept) == ("npo", "golf") else 1.0
                settings = {"tried": one(2.0 if m == "words_both" else 12.0)}
                settings |= {"setting_rate": one(rate), "setting_scale": one(0.5)} if m in ("npo", "dpo") else {}
                store.add(Cell(concept, m, "fit"), settings)
            for m, cost in costs.items():
                if m == "pisces+words_both" and concept == "golf":
                    continue
                for scale in (0.5, 1.0):
                    top = 0.9 if m == "gradient_ascent" else 2.0
                    lost = {k: [top * scale * x + 0.01 * i for i in range(9)]
                            for k, x in (("target", 1), ("neighbour", cost))}  # fmt: skip
                    point = asdict(Point(scale, lost))
                    store.add(Cell(concept, m, "curve", f"{scale:g}"), {"possible": one(1)}, record=point)
        path = store.finish()
    return LabView.read("m", path)


def test_what_has_a_row_is_counted_and_what_has_none_is_named(view):
    told = coverage(view)
    assert told.startswith("6 of ") and "5 a strength curve, 0 were attacked (none)" in told
    assert "0 of the rows stand on 3 concepts or more, all on 1 seed." in told
    without = told.split("Without a row: ")[1].rstrip(".").split(", ")
    assert "elm" in without and "npo alone" in without and "npo" not in without and "random norm" not in without
    rows = {row[0]: row[1:] for row in coverage_rows(view)}
    assert rows["npo"] == ("fine-tuning", "12 steps, 40 s", "2", "2", "\u2013")
    assert rows["words_both"][2:] == ("2", "\u2013", "\u2013")


def test_unequal_tuning_is_told(view):
    told = tuning_reading(view)
    assert told.startswith("Settings tried on dev: 12 for 5 of 6 methods on every concept")
    assert "words both 2 on 2 concepts" in told
    assert "rate 2 by npo (golf)." in told and "dpo" not in told.split("strong end")[1]


def test_a_method_that_never_takes_so_much_is_named(view):
    assert "gradient ascent (japan: 0.94), gradient ascent (golf: 0.94)." in unreached(view, 1.0)
    assert unreached(view, 0.5).endswith("none.")


def test_depth_and_overshoot_stand_beside_the_axes(view):
    rows = {row[0]: row[1:] for row in beside_rows(view)}
    assert rows["dpo"][2:] == (
        "0.80 [0.70, 0.90]",
        "0.90 [0.80, 1.00]",
        "0.30 [0.20, 0.40]",
        "\u2013",
        "2.00 [1.90, 2.10]",
    )
    told = overshoot_reading(view)
    assert "with 1 (dpo) of 6 methods, surely stay above it with 1 (npo)." in told


def test_each_is_said_of_each_alone_and_the_best_form_is_a_second_reference(view):
    at = view.at(1.0)
    told = {claim: said for claim, _, said in closing_rows(view, at, 1.0)}
    first = told["at equal loss each fine-tuning method costs the neighbour more than PISCES"]
    assert first.startswith("seen with some, not with each: surely so with 1 of 2, surely the reverse with 1")
    best = told["more than PISCES with words on both sides (japan alone)"]
    assert best.startswith("seen with each: surely so with 2 of 2")
