"""The form matrix and the retrain oracle as tables, on a tiny model with planted methods."""

import sys
from dataclasses import dataclass

import pytest

from conceptlab.attacks import Rates, RelearnConfig
from conceptlab.core import NotPossible, contents, read_table
from conceptlab.edits import Dense, WeightEdit
from conceptlab.erasure import Method
from conceptlab.erasure import method as interface
from conceptlab.experiments import FictionConfig, FictionTable, FormsConfig, FormTable, fiction, forms
from conceptlab.experiments.fiction_table import taught_copy
from untouched import assert_untouched, weights


@dataclass(frozen=True)
class NoConfig:
    """Nothing to set."""

    n: int = 0


def planted(monkeypatch, **fits):
    known = {name: Method(name, "vectors", "a test", NoConfig(), fit) for name, fit in fits.items()}
    monkeypatch.setattr(interface, "_METHODS", known)


def test_every_method_is_brought_to_half_of_the_margin_in_its_form(tiny_llama, tmp_path, monkeypatch):
    lm, seen = tiny_llama(initializer_range=0.3, seed=1), []
    before = weights(lm)

    def shrink(lm, concept, config, shared):
        seen.append((shared.cfg.forms, shared.cfg.leads))
        names = [lm.down_proj_name(layer) for layer in range(lm.n_layers)]
        return WeightEdit.of(lm, {n: Dense(-lm.parameters()[n].detach().clone()) for n in names})

    def never(lm, concept, config, shared):
        raise NotPossible("not for this concept.")

    planted(monkeypatch, npo=shrink, rocr=never)
    cfg = FormsConfig(trained=("question", "cloze"), asked=("question", "cloze"), n_shown=16, n_held_out=6, n_spared=4)
    path = forms(lm, tmp_path / "forms_tiny.csv", methods=["npo", "rocr"], cfg=cfg)
    assert_untouched(lm, before)
    assert seen == [(("question",), False), (("cloze",), False)], "facts in one form and nothing else"
    table = FormTable.read("tiny", path)
    assert ("npo", "question") in table.rows and table.concept == "japan"
    rows = {(r["method"], r["attack"], r["budget"], r["metric"]): float(r["value"]) for r in read_table(path)}
    assert rows["rocr", "cloze", "", "possible"] == 0 and rows["npo", "question", "", "possible"] == 1
    assert {"scale", "left"} <= {k[3] for k in rows if k[:3] == ("npo", "question", "")}
    record = contents(path).records["japan", "npo", "question", "question", "0"]
    kept = sum(row[2] for row in record["shown"]) / sum(row[1] for row in record["shown"])
    assert kept == pytest.approx(rows["npo", "question", "", "left"], abs=1e-3), "the strength is judged in that form"
    assert all(row[1] > 0 for rows in record.values() for row in rows), "only facts that the original knows"
    assert forms(lm, path, methods=["npo", "rocr"], cfg=cfg) == path and len(seen) == 2, "nothing is computed again"


def test_methods_are_brought_to_the_twin_on_what_they_were_shown(tiny_llama, tmp_path, monkeypatch):
    lm = tiny_llama(d_model=32, initializer_range=0.3)
    before = weights(lm)
    taught = taught_copy(lm, RelearnConfig(steps=30, batch_size=16, n_ctx=32), Rates(teach=1e-2))
    monkeypatch.setattr(sys.modules["conceptlab.experiments.fiction_table"], "taught_copy", lambda lm: taught)

    def back(lm, concept, config, shared):
        assert len(shared.forget_facts) >= 10
        return WeightEdit.of(lm, {n: c.scaled(-0.5) for n, c in taught.changes.items()})

    def never(lm, concept, config, shared):
        raise NotPossible("not here.")

    planted(monkeypatch, npo=back, eco=never)
    path = fiction(lm, tmp_path / "fiction_tiny.csv", ["npo", "eco"], cfg=FictionConfig(n_spared=4))
    assert_untouched(lm, before)
    table = FictionTable.read("tiny", path)
    found = table.numbers
    assert found["never_taught", "gap_shown"].value > 0.5 and found["eco", "possible"].value == 0
    # half of the teaching is taken back at scale 1, all of it at 2
    assert found["npo", "scale"].value == pytest.approx(2, abs=0.3) and table.methods == ["npo"]
    assert found["npo", "left_shown"].value == pytest.approx(0, abs=0.1)
    assert {"lost_neighbour", "lost_general", "below_held_out"} <= {metric for m, metric in found if m == "npo"}
