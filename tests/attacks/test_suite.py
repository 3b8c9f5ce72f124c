"""The suite on a tiny model: every attack runs, none leaks, none leaves a trace; the table, and the command line."""

import contextlib
import dataclasses
import json
import sys

import pytest
import torch

from conceptlab import cli
from conceptlab.attacks import (
    MEASURES,
    QUICK,
    SUITE,
    AttackResult,
    Budget,
    Cost,
    Hits,
    floor_of,
    known_questions,
    per_question,
    run_attack,
    setting_for,
    share,
    summarise,
)
from conceptlab.core import ConceptLabError, share_difference
from conceptlab.data import Question, leaked, load_concept, load_fiction, translatable
from conceptlab.edits import WeightEdit
from conceptlab.edits.weight_edit import Dense
from conceptlab.erasure import EraserConfig
from conceptlab.evaluation import QuestionScores, closest, score_questions
from conceptlab.experiments import ResultTable, attacks, matched, read_table
from conceptlab.experiments.attacks import edit_path
from conceptlab.experiments.pooled import Record, Records, pooled

SMALL = Budget(
    steps=2, layers=(1,), read_layers=(1,), thoughts=2, gcg_steps=1, gcg_facts=2, width=2, soft_steps=1, rank=2,
    n_facts=10,
)  # fmt: skip


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(d_model=32, initializer_range=0.3)


@pytest.fixture
def edit(lm):
    noise = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    return WeightEdit(lm.name, {lm.down_proj_name(1): Dense(noise)})


def weights(lm):
    return {name: p.detach().clone() for name, p in lm.hf.named_parameters()}


def chosen(n=4):
    """Test questions about Japan that have translations."""
    concept = load_concept("japan")
    return concept, [q for q in concept.test if q.id in ("jpn-t02", "jpn-t05", "jpn-t07", "jpn-t11", "jpn-t15")][:n]


def test_every_attack_runs_and_leaves_the_model_bit_identical(lm, edit):
    concept, questions = chosen()
    setting = setting_for(concept, questions, SMALL)
    before, original = weights(lm), setting.score(lm)
    with edit.applied(lm):
        erased = setting.score(lm)
    for name in SUITE:
        result = run_attack(name, lm, edit, setting)
        assert isinstance(result, AttackResult) and len(result.values) == len(result.steps) > 0, name
        assert len(per_question(result.last, MEASURES.get(name, "margin"))) == 4, name
        assert len(result.controls) in (0, len(result.values)), name
        rows = summarise(name, result, original, erased, setting, result)
        assert len(rows) == len(result.steps), name
        assert all(found["below_ceiling"].value == 0 for found in rows.values()), name
        now = dict(lm.hf.named_parameters())
        assert all(torch.equal(now[n], old) for n, old in before.items()), name
        assert not any(p.requires_grad or p.grad is not None for p in now.values()), name
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in lm.hf.modules()), name
    assert set(QUICK) <= set(SUITE)
    with pytest.raises(ConceptLabError, match="Unknown attack 'bribery'; known are relearning"):
        run_attack("bribery", lm, edit, setting)


def test_a_setting_holds_no_answer_that_is_tested():
    setting = setting_for(load_concept("chemical_elements"))
    shown = [setting.subject.title, setting.subject.definition, *setting.subject.texts]
    shown += [f"{f.q} {f.gold}" for f in setting.facts]
    shown += [*setting.unrelated]
    shown += [setting.control.title, setting.control.definition, *setting.control.texts]
    assert leaked(shown, setting.questions) == []
    assert len(setting.questions) > 20 and len(setting.facts) > 5


def test_questions_that_the_title_answers_are_left_out():
    concept = load_concept("uranium")
    told = Question("told", "Which metal is in the fuel rods?", ("tin", "uranium", "lead", "zinc"), 1)
    assert setting_for(concept, [told, concept.test[0]]).questions == (concept.test[0],)
    with pytest.raises(ConceptLabError, match="gives its answer away by the title"):
        setting_for(concept, [told])


def test_a_fiction_as_a_setting():
    setting = setting_for(load_fiction(), budget=SMALL)
    assert len(setting.questions) == 16 and len(setting.facts) > 8
    assert not {q.id for q in setting.questions} & {f.id for f in setting.facts}
    assert leaked([*setting.subject.texts, *setting.unrelated], setting.questions) == []


def test_a_summary_by_hand():
    table = torch.tensor([[0.0, -1], [0.0, -1], [0.0, -1], [-1.0, 0]])
    answers = torch.zeros(4, dtype=torch.long)
    original, erased = QuestionScores(table, answers), QuestionScores(table.flip(1), answers)
    half = QuestionScores((original.logprobs + 3 * erased.logprobs) / 4, answers)
    concept, questions = chosen()
    setting = setting_for(concept, questions, SMALL)
    result = AttackResult((7,), (half,), (), Cost(0, 0, 0.0), labels=("x",))
    found = summarise("relearning", result, original, erased, setting)["x"]
    assert found["value"].value == pytest.approx(-0.25) and found["gain"].value == pytest.approx(0.25)
    assert found["share"].value == pytest.approx(0.25) == share(original, erased, half).value
    assert "share" not in summarise("relearning", result, erased, original, setting)["x"]  # nothing was erased
    hits = AttackResult((1,), (Hits(torch.tensor([1.0, 0, 0, 1])),), (), Cost(0, 0, 0.0))
    assert summarise("logit_lens", hits, original, erased, setting)["1"]["value"].value == 0.5


def test_strengths_and_controls_come_from_the_budget(lm, edit):
    concept, questions = chosen(3)
    strengths = (("relearning", (1,)), ("quantisation", (3,)), ("role", (2,)), ("undoing", (2,)))
    lean = dataclasses.replace(SMALL, strengths=strengths, controls=False, forms=("cloze", "clue"), form_questions=2)
    setting = setting_for(concept, questions, lean)
    for name, steps in {"relearning": (1,), "quantisation": (3,), "role": (2,), "undoing": (2,)}.items():
        assert run_attack(name, lm, edit, setting).steps == steps, name
    assert run_attack("role", lm, edit, setting).controls == ()
    asked = run_attack("forms", lm, edit, setting)
    assert asked.labels == ("cloze", "clue") and [len(v.answers) for v in asked.values] == [2, 2]


def test_what_is_kept_lies_between_guessing_and_the_original(lm, edit):
    concept, questions = chosen()
    setting = setting_for(concept, questions, SMALL)
    scores = setting.score(lm)
    top = AttackResult((1,), (Hits(torch.tensor([1.0, 1, 1, 0])),), (), Cost(0, 0, 0.0))
    found = AttackResult((1,), (Hits(torch.tensor([1.0, 0, 1, 0])),), (), Cost(0, 0, 0.0), (Hits(torch.ones(4) / 4),))
    kept = summarise("logit_lens", found, scores, scores, setting, top)["1"]["kept"]
    assert kept.value == pytest.approx((0.5 - 0.25) / (0.75 - 0.25))
    result = run_attack("forms", lm, edit, setting)
    assert float(floor_of("forms", result, 0).mean()) == 0.25 and floor_of("relearning", result, 0) is None


def test_the_shipped_edit_is_read_or_else_made(lm, tmp_path, monkeypatch):
    module = sys.modules[attacks.__module__]
    monkeypatch.setattr(sys.modules["conceptlab.core.tables"], "data_dir", lambda: tmp_path)
    monkeypatch.setattr(module, "Edits", lambda lm, concept, **_: lambda method: constant(lm, 0.5))
    japan = load_concept("japan")
    assert module.shipped_edit(lm, japan).info == {"x": 0.5}  # nothing is kept
    path = edit_path(tmp_path / "results" / f"attacks_{lm.name}.csv", "japan", "pisces")
    path.parent.mkdir(parents=True)
    constant(lm, 0.1).save(path)
    assert module.shipped_edit(lm, japan).info == {"x": 0.1}


# ---- the table --------------------------------------------------------------------------------------------
def constant(model, x):
    return WeightEdit(model.name, {model.down_proj_name(1): Dense(torch.full((32, 64), x))}, {"x": x})


def test_the_experiment_fills_its_cells_and_goes_on_where_it_stopped(lm, tmp_path, monkeypatch):
    module = sys.modules[attacks.__module__]  # the package has a function of the same name
    made = []

    def maker(model, concept):
        def make(method):
            made.append(method)
            if method == "needle":
                raise ConceptLabError("no needle.")
            return constant(model, 0.1)

        return make

    monkeypatch.setattr(module, "teach", lambda model, lessons, cfg: constant(model, 0.2))
    monkeypatch.setattr(module, "erase_fiction", lambda model, **_: constant(model, -0.1))
    names = ("quantisation", "definition", "logit_lens", "undoing")
    methods = ("original", "pisces", "random", "npo", "needle")
    run = dict(concepts=["japan"], methods=methods, n_questions=4, budget=SMALL, maker=maker, names=names)
    stop = ResultTable("attacks", lm, tmp_path)
    real = stop.add

    def add(found, concept, method, attack, strength):
        real(found, concept, method, attack, strength)
        if (method, attack) == ("random", "logit_lens"):  # after the first of its strengths
            raise KeyboardInterrupt

    monkeypatch.setattr(stop, "add", add)
    shipped = edit_path(stop.path, "japan", "pisces")
    shipped.parent.mkdir()
    constant(lm, 9.0).save(shipped)
    with contextlib.suppress(KeyboardInterrupt):
        attacks(lm, stop, **run)
    assert WeightEdit.load(shipped).info == {"x": 9.0}  # edits change together with the table
    done = {(r["method"], r["attack"]) for r in stop.rows}
    complete = {(r["method"], r["attack"]) for r in stop.rows if r["budget"] == "cost"}
    assert done - complete == {("random", "logit_lens")} and not stop.path.exists()
    again = ResultTable("attacks", lm, tmp_path)
    kept = len(again.rows)
    attacks(lm, again, **run)
    assert WeightEdit.load(shipped).info == {"x": 0.1} and not edit_path(again.partial, "", "").parent.exists()
    rows = read_table(again.path)
    keys = [tuple(r[c] for c in ("concept", "method", "attack", "budget", "metric")) for r in rows]
    assert len(rows) > kept and len(keys) == len(set(keys))  # the half-written cell was done again, once
    assert all(r in rows for r in stop.rows if (r["method"], r["attack"]) in complete)
    cells = {(r["method"], r["attack"]) for r in rows if r["concept"] == "japan"}
    tried = {(m, a) for m in methods if m != "needle" for a in ("direct", *names)}
    assert cells == tried - {("original", "undoing")}
    fiction = [r for r in rows if r["method"] == "never_taught"]
    assert {r["attack"] for r in fiction} == {"quantisation", "definition"}
    copies = {"taught", "erased", "never", "attacked", "never_attacked"}
    assert {r["metric"] for r in fiction} == copies | {"above_control", "steps", "tokens"}
    assert made.count("npo") == 1 and made.count("pisces") == 1
    settings = json.loads(again.path.with_suffix(".json").read_text())["settings"]
    assert settings["skipped"] == ["japan needle: no needle."] and settings["edits"]["japan npo"] == {"x": 0.1}
    assert "japan pisces" in settings["edits"]  # although the resumed run had nothing left to do with it
    everywhere = [r for r in rows if r["concept"] == "all" and r["method"] == "pisces"]
    alone = [r for r in rows if r["concept"] == "japan" and r["method"] == "pisces"]
    assert not list(tmp_path.glob("*.edits.json"))  # only while a run goes on
    values = {(r["attack"], r["budget"]): r["value"] for r in alone if r["metric"] == "value"}
    pooled_values = {(r["attack"], r["budget"]): r["value"] for r in everywhere if r["metric"] == "value"}
    assert pooled_values and all(
        float(values[k]) == pytest.approx(float(v), abs=1e-3) for k, v in pooled_values.items()
    )


def test_the_seed_of_the_table_is_that_of_edits_and_attacks(lm, tmp_path):
    module = sys.modules[attacks.__module__]
    assert module.edit_maker(lm, 3)(lm, load_concept("japan")).seed == 3
    found = {}
    for seed in (0, 1):
        table = ResultTable("attacks", lm, tmp_path, seed)
        attacks(lm, table, ["japan"], ("original",), ("relearning",), n_questions=4, budget=SMALL)
        rows = read_table(table.path)
        found[seed] = [r["value"] for r in rows if (r["attack"], r["metric"]) == ("relearning", "value")]
        assert found[seed] and {r["seed"] for r in rows} == {str(seed)}
    assert found[0] != found[1]
    kept = Records(tmp_path / f"attacks_{lm.name}.questions.json", seed=1)
    assert kept.get("japan", "original", "relearning") is not None


def test_records_of_a_finished_run_are_not_taken(tmp_path):
    path = records(tmp_path).path
    assert Records(path).get("a", "npo", "direct") is not None
    assert Records(path, seed=1).get("a", "npo", "direct") is None
    assert Records(path, resume=False).found == {}


def test_an_attack_that_cannot_be_run_is_named_in_the_provenance(lm, tmp_path):
    table = ResultTable("attacks", lm, tmp_path)
    attacks(lm, table, ["golf"], ("original",), ("language",), n_questions=5, budget=SMALL)
    (reason,) = json.loads(table.path.with_suffix(".json").read_text())["settings"]["skipped"]
    assert reason.startswith("golf original language: No question about Golf has a translation")


def test_the_edit_closest_to_the_wanted_loss_is_taken(lm):
    ladder = [constant(lm, x) for x in (0.0, 0.3, 3.0)]

    def lost(edit):
        return 2 * edit.info["x"]

    assert closest(lost, ladder, 0.7) is ladder[1] and closest(lost, ladder, 50.0) is ladder[2]
    with pytest.raises(ConceptLabError, match="no edit to choose from"):
        closest(lost, [], 0.5)


def test_known_questions_are_answered_rightly_and_begin_with_translated_ones(lm):
    concept = load_concept("japan")
    known = known_questions(lm, concept, 12)
    assert len(known) == 12 and bool(score_questions(lm, known).correct.all())
    translated = [q in translatable(known) for q in known]
    assert translated == sorted(translated, reverse=True)
    with pytest.raises(ConceptLabError, match="at least 1000 are needed"):
        known_questions(lm, concept, 1000, at_least=1000)
    with pytest.raises(ConceptLabError, match="At least 4 questions"):
        known_questions(lm, concept, 0)


def test_methods_follow_pisces_on_dev(lm, monkeypatch):
    """Erasers stop once they have taken as much dev margin as the PISCES edit, here a small noise."""
    monkeypatch.setattr(matched, "shipped_dictionaries", lambda model: {})
    edits = matched.Edits(lm, load_concept("japan"), eraser=EraserConfig(steps=30, every=1, lr=3e-3, batch_size=2))
    noise = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
    edits.work._edits["pisces"] = WeightEdit(lm.name, {lm.down_proj_name(0): Dense(0.05 * noise)})
    least = matched.LEAST * float(edits.before.margin.mean())
    assert edits.wanted >= least - 1e-6
    for method in ("gradient_ascent", "npo"):
        edit = edits(method)
        assert edit.info["method"] == method
        assert edit.info["factor"] in matched.FACTORS and edit.info["steps"] <= 30
    assert sorted(edits("random").changes) == sorted(edits("pisces").changes)


# ---- over all concepts ------------------------------------------------------------------------------------
def records(tmp_path):
    """Two concepts of two questions; under pisces half the gap comes back, under npo all of it."""
    found = Records(tmp_path / "x.json")
    for concept in ("a", "b"):
        for method, margins, attacked in (
            ("original", [2.0, 4.0], [2.0, 4.0]), ("pisces", [0.0, 1.0], [1.0, 2.5]), ("npo", [1.0, 1.0], [2.0, 4.0]),
        ):  # fmt: skip
            right = [float(x > 0) for x in margins]
            found.add(concept, method, "direct", Record(["margin", "correct"], [margins, right]))
            found.add(concept, method, "relearning", Record(["5"], [attacked]))
            found.add(concept, method, "probe", Record(["3"], [right], [[0.25, 0.25]]))
    found.add("a", "pisces", "language", Record(["de"], [[3.0]], asked=[1]))
    return Records(found.path)  # read again


def test_shares_over_all_concepts_by_hand(tmp_path):
    found = records(tmp_path)
    pisces, npo = (pooled(found, ["a", "b"], m, "relearning")["5"] for m in ("pisces", "npo"))
    assert pisces["share"].value == pytest.approx(0.5) and pisces["share"].n == 4
    assert npo["share"].value == pytest.approx(1.0) and npo["minus_pisces"].value == pytest.approx(0.5)
    assert npo["minus_pisces"].low == pytest.approx(0.5) and "minus_pisces" not in pisces
    direct = pooled(found, ["a", "b"], "pisces", "direct")
    assert direct["correct"]["kept"].value == pytest.approx((0.5 - 0.25) / 0.75)
    assert direct["margin"]["lost"].value == pytest.approx(2.5)
    assert direct["margin"]["margin_kept"].value == pytest.approx(0.5 / 3)
    assert pooled(found, ["a", "b"], "pisces", "probe")["3"]["kept"].value == pytest.approx(0.25 / 0.75)
    language = pooled(found, ["a", "b"], "pisces", "language")["de"]
    assert language["n_concepts"].value == 1 and language["share"].value == pytest.approx(2 / 3)
    assert pooled(found, ["a"], "pisces", "gcg") == {}
    found.add("a", "original", "relearning", Record(["5"], [[2.5, 4.5]]))
    found.add("b", "original", "relearning", Record(["5"], [[2.5, 4.5]]))
    below = pooled(found, ["a", "b"], "pisces", "relearning")["5"]["below_ceiling"]
    assert below.value == pytest.approx(3.5 - 1.75) and below.n == 4
    assert "below_ceiling" not in pooled(found, ["a", "b"], "original", "relearning")["5"]


def test_shares_of_different_questions_are_not_compared():
    one, two = torch.ones(3), torch.zeros(3)
    assert share_difference((one, two, two), (two, two, two)) is None
    with pytest.raises(ConceptLabError, match="same questions only"):
        share_difference((one, two, two), (one[:2], two[:2], two[:2]))


# ---- the command line -------------------------------------------------------------------------------------
def test_the_verb_attack_prints_each_strength(lm, edit, tmp_path, monkeypatch, capsys):
    import conceptlab.models

    monkeypatch.setattr(conceptlab.models, "load_model", lambda name: lm)
    edit.save(tmp_path / "edit.safetensors")
    line = ["attack", "japan", "--edit", str(tmp_path / "edit.safetensors"), "--questions", "4"]
    assert cli.main([*line, "--attacks", "quantisation", "definition"]) == 0
    out = capsys.readouterr().out
    assert "4 questions, margin" in out and "quantisation 4-bit: value" in out and "definition 1: value" in out
    assert cli.main([*line, "--attacks", "bribery"]) == 1
    assert "Unknown attack 'bribery'" in capsys.readouterr().err
