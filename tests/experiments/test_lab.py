"""The lab: methods fitted, scored and attacked in one table that any interruption leaves whole."""

import json
import sys
from dataclasses import asdict, dataclass, replace
from functools import partial

import pytest
import torch

from conceptlab.attacks import Budget, Rates
from conceptlab.core import Cell, ConceptLabError, NotPossible, contents, read_table
from conceptlab.data import load_concept
from conceptlab.edits import Dense, WeightEdit
from conceptlab.erasure import Method, methods
from conceptlab.erasure import method as interface
from conceptlab.experiments import (
    CurveConfig,
    FinalConfig,
    LabConfig,
    Record,
    attacking,
    curves_of,
    lab,
    matched,
    pooled,
    shipped_edit,
)
from conceptlab.models import guarded
from dictionaries import make_sae
from sizes import SMALL

FINAL = FinalConfig(
    n_target=4, n_spared=4, n_others=2, n_texts=2, n_vectors=3, forms=("cloze",), forms_of=("pisces",), n_forms=4,
    writing_of=("pisces",), n_mmlu=2, n_depth=3,
)  # fmt: skip
BUDGET = Budget(steps=2, batch_size=2, n_ctx=16, strengths=(("relearning", (1, 2)),), read_layers=(1,), controls=False)
NAMES = ("quantisation", "definition", "logit_lens", "undoing")


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(d_model=32, initializer_range=0.5, tie_word_embeddings=True)


@pytest.fixture
def saes(lm):
    return {layer: make_sae(lm, layer) for layer in (0, 1)}


@dataclass(frozen=True)
class ToyConfig:
    """A toy's strength."""

    amount: float = 0.1


@pytest.fixture
def toys(monkeypatch, tmp_path):
    """Four methods of a line each; `toys` lists what was fitted."""
    monkeypatch.setattr(interface, "cache_dir", lambda: tmp_path / "cache")
    fitted = []

    def fit(lm, concept, config, shared, name):
        fitted.append((concept.name, name))
        if name == "never":
            raise NotPossible("nothing to edit.")
        delta = torch.full((lm.d_model, lm.d_mlp), config.amount)
        return WeightEdit(lm.name, {lm.down_proj_name(1): Dense(delta)}, {"name": name})

    known = {
        name: Method(name, "control", "a test", ToyConfig(x), partial(fit, name=name))
        for name, x in (("small", 0.01), ("large", 0.3), ("never", 0.0), ("big_file", 0.1))
    }
    monkeypatch.setattr(interface, "_METHODS", known)
    return fitted


@pytest.fixture
def fiction(monkeypatch):
    """The never-taught control without training."""

    def constant(x):
        return lambda lm, *_, **__: WeightEdit(
            lm.name, {lm.down_proj_name(1): Dense(torch.full((lm.d_model, lm.d_mlp), x))}
        )

    monkeypatch.setattr(attacking, "teach", constant(0.2))
    monkeypatch.setattr(attacking, "erase_fiction", constant(-0.1))
    monkeypatch.setattr(attacking, "rates_of", lambda *_: Rates())


CFG = LabConfig(SMALL, FINAL, BUDGET, 4, curve=CurveConfig((0.5, 1.0), 4, ()))


def by_cell(path):
    return {
        (r["concept"], r["method"], r["attack"], r["budget"], r["metric"]): float(r["value"]) for r in read_table(path)
    }


# ---- fit and score ----------------------------------------------------------------------------------------
def test_pisces_is_fitted_scored_and_its_edit_kept(lm, saes, tmp_path, monkeypatch):
    monkeypatch.setattr(interface, "cache_dir", lambda: tmp_path / "cache")
    path = tmp_path / "lab.csv"
    lab(lm, path, ["golf"], ("pisces", "other_features"), ("fit", "score"), cfg=CFG, saes=saes)
    found = by_cell(path)
    assert found["golf", "original", "", "", "known_target"] <= FINAL.n_target
    assert found["golf", "pisces", "fit", "", "tried"] in (4, 8)
    # a random model knows nothing above chance: efficacy is not measurable and has no row
    elsewhere = {k[4].removeprefix("collateral_gold_") for k in found if k[4].startswith("collateral_gold_")}
    assert "golf" not in elsewhere and len(elsewhere) >= 3  # of those that the model knows two questions about
    for metric in ("gold_target", "accuracy_target_after", "residue_cosine", "mmlu_after", "gold_general"):
        assert ("golf", "pisces", "", "", metric) in found, metric
    assert ("golf", "other_features", "", "", "gold_target") in found
    assert ("golf", "other_features", "", "", "mmlu_after") not in found
    note = json.loads(path.with_suffix(".json").read_text())
    assert note["fingerprint"] == lm.fingerprint() and set(note["fingerprints"]) == {"layer 0", "layer 1"}
    assert note["settings"]["shared"]["n_candidates"] == SMALL.n_candidates
    edit = WeightEdit.load(tmp_path / "lab" / "golf_pisces.safetensors")
    setting = contents(path).records["golf", "pisces", "fit", "", "0"]["setting"]
    assert edit.info["mu"] == setting["mu"] and len(edit.info["features"]) == setting["n"]


def test_a_concept_with_a_single_feature_does_not_stop_the_table(lm, saes, tmp_path, monkeypatch):
    monkeypatch.setattr(interface, "cache_dir", lambda: tmp_path / "cache")
    path, one = tmp_path / "lab.csv", replace(CFG, shared=replace(SMALL, n_candidates=1))
    lab(lm, path, ["golf"], ("pisces",), ("fit", "score"), cfg=one, saes=saes)
    (row,) = (r for r in read_table(path) if r["metric"] == "energy_left")
    assert (row["n"], row["low"]) == ("1", row["high"])


def test_what_is_there_is_not_fitted_again(lm, toys, tmp_path):
    path = tmp_path / "lab.csv"
    lab(lm, path, ["golf"], ("small",), ("fit",), cfg=CFG, saes={})
    assert toys == [("golf", "small")]
    lab(lm, path, ["golf"], ("small", "large"), ("fit", "score"), cfg=CFG, saes={})
    assert toys == [("golf", "small"), ("golf", "large")]  # the first edit was read from its file
    assert by_cell(path)["golf", "small", "", "", "possible"] == 1
    with pytest.raises(ConceptLabError, match=r"made otherwise .*settings"):
        lab(lm, path, ["golf"], ("small",), ("score",), cfg=replace(CFG, n_attacked=5), saes={})


def test_only_what_is_not_possible_is_a_result(lm, toys, tmp_path, monkeypatch):
    path = tmp_path / "lab.csv"
    lab(lm, path, ["golf"], ("never",), ("fit", "score"), cfg=CFG, saes={})
    found = by_cell(path)
    assert found["golf", "never", "fit", "", "possible"] == found["golf", "never", "", "", "possible"] == 0
    assert not any(k[1] == "never" and k[4] == "efficacy" for k in found)

    def broken(*_, **__):
        raise ConceptLabError("swapped dictionaries.")

    monkeypatch.setitem(interface._METHODS, "large", replace(methods()["large"], fit=broken))
    with pytest.raises(ConceptLabError, match="swapped dictionaries"):
        lab(lm, path, ["golf"], ("large",), ("fit", "score"), cfg=CFG, saes={})
    assert not any(k[1] == "large" for k in by_cell(path))


def test_a_large_edit_is_fitted_again_and_not_kept(lm, toys, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["conceptlab.experiments.lab"], "LARGEST", 10)
    path = tmp_path / "lab.csv"
    lab(lm, path, ["golf"], ("big_file",), ("fit",), cfg=CFG, saes={})
    assert not list(tmp_path.glob("lab/*.safetensors"))
    lab(lm, path, ["golf"], ("big_file",), ("score",), cfg=CFG, saes={})
    assert toys == [("golf", "big_file")] * 2


def test_names_are_checked_before_the_work(lm, tmp_path):
    for wrong, message in (({"methods": ("magic",)}, "Unknown method"), ({"stages": ("dance",)}, "Unknown stage"),
                           ({"concepts": ["atlantis"]}, "No concept")):  # fmt: skip
        with pytest.raises(ConceptLabError, match=message):
            lab(lm, tmp_path / "lab.csv", cfg=CFG, saes={}, **({"methods": ("words",)} | wrong))
    assert not list(tmp_path.glob("lab*"))


# ---- attack -----------------------------------------------------------------------------------------------
def test_that_very_edit_is_attacked_and_an_interruption_costs_one_cell(lm, toys, fiction, tmp_path, monkeypatch):
    path, run = tmp_path / "lab.csv", attacking.run_attack
    both = {"attacks": NAMES, "attacked": ("original", "small", "never"), "cfg": CFG, "saes": {}}
    attacked = []

    def stop(name, model, edit, setting):
        attacked.append((name, None if edit is None else edit.info.get("name")))
        if len(attacked) == 5:
            raise KeyboardInterrupt
        return run(name, model, edit, setting)

    monkeypatch.setattr(attacking, "run_attack", stop)
    with pytest.raises(KeyboardInterrupt):
        lab(lm, path, ["japan"], ("small", "never"), **both)
    assert not path.exists()
    lab(lm, path, ["japan"], ("small", "never"), **both)
    done = [x for x in attacked[:4]] + attacked[5:]
    tried = [(a, m) for m in (None, "small") for a in NAMES if (m, a) != (None, "undoing")]
    assert done[: len(tried)] == tried  # each once; then come the copies of the never-taught control
    assert toys.count(("japan", "small")) == 1
    found = by_cell(path)
    assert {k[2] for k in found if k[:2] == ("japan", "small")} == {"fit", "", "curve", "direct", *NAMES}
    assert {k[2] for k in found if k[1] == "never_taught"} == {"quantisation", "definition"} & {*attacking.FICTION}
    alone = {k[2:]: v for k, v in found.items() if k[:2] == ("japan", "small") and k[4] == "value" and k[2] != "direct"}
    together = {
        k[2:]: v for k, v in found.items() if k[:2] == ("all", "small") and k[4] == "value" and k[2] != "direct"
    }
    assert together and all(alone[k] == pytest.approx(v, abs=1e-3) for k, v in together.items())


@dataclass(frozen=True)
class Push:
    """A run-time method: it adds a number to every final hidden state."""

    amount: float

    def scaled(self, factor):
        return Push(factor * self.amount)

    def applied(self, lm):
        return guarded(lm, "a push", end=lambda hidden, _: hidden + self.amount)


def test_a_run_time_method_is_fitted_again_scored_scaled_and_attacked(lm, toys, fiction, tmp_path, monkeypatch):
    path = tmp_path / "lab.csv"

    def fit(lm, concept, config, shared):
        toys.append((concept.name, "push"))
        return Push(config.amount)

    monkeypatch.setitem(interface._METHODS, "push", Method("push", "run-time", "a test", ToyConfig(0.5), fit))
    cfg = replace(CFG, curve=CurveConfig((0.5, 1.0), 4, ("quantisation",)))
    lab(lm, path, ["japan"], ("push",), ("fit",), cfg=cfg, saes={})
    stages = ("score", "curve", "attack")
    lab(lm, path, ["japan"], ("push",), stages, attacks=NAMES, attacked=("push",), cfg=cfg, saes={})
    assert toys.count(("japan", "push")) == 2, "nothing was saved that could be read"
    found = by_cell(path)
    assert found["japan", "push", "", "", "residue_cosine"] == pytest.approx(1), "no weight changes"
    assert (
        found["japan", "push", "undoing", "cost", "possible"] == 0 == found["japan", "push", "fit", "", "possible"] - 1
    )
    half, whole = (found["japan", "push", "curve", x, "lost_general"] for x in ("0.5", "1"))
    assert half != whole
    curves = curves_of(lambda c: contents(path).records.get((c.concept, c.method, c.attack, c.budget, "0")), ["japan"],
                       ["push"], (0.5, 1.0))  # fmt: skip
    points = curves["push"]["japan"]
    assert [p.scale for p in points] == [0.5, 1.0] and len(points[0].attacked["quantisation"]) == 2
    top = max(sum(p.lost["target"]) / len(p.lost["target"]) for p in points)
    if top > 0.02:
        assert matched(curves, top / 2)["push"]["n_concepts"].value == 1


def test_the_shipped_edit_is_read_or_else_made(lm, toys, tmp_path, monkeypatch):
    monkeypatch.setattr("conceptlab.core.tables.data_dir", lambda: tmp_path)
    japan = load_concept("japan")
    monkeypatch.setitem(interface._METHODS, "pisces", replace(methods()["small"], name="pisces"))
    assert shipped_edit(lm, japan).info == {"name": "small"}
    path = tmp_path / "results" / f"lab_{lm.name}" / "japan_pisces.safetensors"
    path.parent.mkdir(parents=True)
    delta = torch.ones(lm.d_model, lm.d_mlp)
    WeightEdit(lm.name, {lm.down_proj_name(0): Dense(delta)}, {"from": "file"}).save(path)
    assert shipped_edit(lm, japan).info == {"from": "file"}


def add(found, concept, method, attack, record):
    found[Cell(concept, method, attack, "cost")] = asdict(record)


# ---- over all concepts ------------------------------------------------------------------------------------
def records():
    """Two concepts of two questions; under pisces half the gap comes back, under npo all of it."""
    found = {}
    for concept in ("a", "b"):
        for method, margins, attacked in (
            ("original", [2.0, 4.0], [2.0, 4.0]), ("pisces", [0.0, 1.0], [1.0, 2.5]), ("npo", [1.0, 1.0], [2.0, 4.0]),
        ):  # fmt: skip
            right = [float(x > 0) for x in margins]
            add(found, concept, method, "direct", Record(["margin", "correct"], [margins, right]))
            add(found, concept, method, "relearning", Record(["5"], [attacked]))
            add(found, concept, method, "probe", Record(["3"], [right], [[0.25, 0.25]]))
    add(found, "a", "pisces", "language", Record(["de"], [[3.0]], asked=[1]))
    return found


def test_shares_over_all_concepts_by_hand():
    found = records()
    pisces, npo = (pooled(found.get, ["a", "b"], m, "relearning")["5"] for m in ("pisces", "npo"))
    assert pisces["share"].value == pytest.approx(0.5) and pisces["share"].n == 4
    assert npo["share"].value == pytest.approx(1.0) and npo["minus_pisces"].value == pytest.approx(0.5)
    assert npo["minus_pisces"].low == pytest.approx(0.5) and "minus_pisces" not in pisces
    direct = pooled(found.get, ["a", "b"], "pisces", "direct")
    assert direct["correct"]["kept"].value == pytest.approx((0.5 - 0.25) / 0.75)
    assert direct["margin"]["lost"].value == pytest.approx(2.5)
    assert direct["margin"]["margin_kept"].value == pytest.approx(0.5 / 3)
    assert pooled(found.get, ["a", "b"], "pisces", "probe")["3"]["kept"].value == pytest.approx(0.25 / 0.75)
    language = pooled(found.get, ["a", "b"], "pisces", "language")["de"]
    assert language["n_concepts"].value == 1 and "share" not in language, "one question has no interval"
    assert pooled(found.get, ["a"], "pisces", "gcg") == {}
    add(found, "a", "original", "relearning", Record(["5"], [[2.5, 4.5]]))
    add(found, "b", "original", "relearning", Record(["5"], [[2.5, 4.5]]))
    below = pooled(found.get, ["a", "b"], "pisces", "relearning")["5"]["below_ceiling"]
    assert below.value == pytest.approx(3.5 - 1.75) and below.n == 4
    assert "below_ceiling" not in pooled(found.get, ["a", "b"], "original", "relearning")["5"]
