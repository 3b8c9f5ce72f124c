"""The suite on a tiny model: every attack runs, none leaks, none leaves a trace; the table, and the command line."""

import contextlib
import json
import sys

import pytest
import torch

from conceptlab import cli
from conceptlab.attacks import (
    QUICK,
    SUITE,
    AttackResult,
    Budget,
    Cost,
    Hits,
    leaked,
    load_fiction,
    per_question,
    run_attack,
    setting_for,
    share,
    summarise,
)
from conceptlab.attacks.suite import MEASURES
from conceptlab.cache import ConceptLabError
from conceptlab.concepts import load_concept
from conceptlab.edits import Dense, WeightEdit
from conceptlab.evaluation import QuestionScores
from conceptlab.reproduce import ResultTable, attacks, read_table
from conceptlab.text import Question

SMALL = Budget(
    steps=2, layers=(1,), read_layers=(1,), thoughts=2, gcg_steps=1, gcg_facts=2, width=2, soft_steps=1, rank=2
)


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
    return concept, [q for q in concept.test if q.id in ("jpn-t01", "jpn-t07", "jpn-t12", "jpn-t15", "jpn-t43")][:n]


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


# ---- the table --------------------------------------------------------------------------------------------
def test_the_experiment_fills_its_cells_and_goes_on_where_it_stopped(lm, tmp_path, monkeypatch):
    module = sys.modules[attacks.__module__]  # the package has a function of the same name
    made = []

    def constant(model, x):
        return WeightEdit(model.name, {model.down_proj_name(1): Dense(torch.full((32, 64), x))})

    def ladder(model, concept, method):
        made.append(method)
        return [constant(model, 0.1)]

    monkeypatch.setattr(module, "teach", lambda model, lessons: constant(model, 0.2))
    monkeypatch.setattr(module, "finetuned_eraser", lambda model, *_: constant(model, -0.1))
    names = ("quantisation", "definition", "logit_lens", "undoing")
    run = dict(concepts=["japan"], methods=("original", "random", "npo"), n_questions=4, budget=SMALL, ladders=ladder)
    stop = ResultTable("attacks", lm, tmp_path)
    real = stop.add

    def add(found, concept, method, attack, strength):
        real(found, concept, method, attack, strength)
        if (method, attack) == ("random", "logit_lens"):  # after the first of its strengths
            raise KeyboardInterrupt

    monkeypatch.setattr(stop, "add", add)
    with contextlib.suppress(KeyboardInterrupt):
        attacks(lm, stop, names=names, **run)
    done = {(r["method"], r["attack"]) for r in stop.rows}
    complete = {(r["method"], r["attack"]) for r in stop.rows if r["budget"] == "cost"}
    assert done - complete == {("random", "logit_lens")} and not stop.path.exists()
    again = ResultTable("attacks", lm, tmp_path)
    kept = len(again.rows)
    attacks(lm, again, names=names, **run)
    rows = read_table(again.path)
    keys = [tuple(r[c] for c in ("concept", "method", "attack", "budget", "metric")) for r in rows]
    assert len(rows) > kept and len(keys) == len(set(keys))  # the half-written cell was done again, once
    assert all(r in rows for r in stop.rows if (r["method"], r["attack"]) in complete)
    cells = {(r["method"], r["attack"]) for r in rows if r["concept"] == "japan"}
    assert cells == {(m, a) for m in run["methods"] for a in names} - {("original", "undoing")}
    fiction = [r for r in rows if r["method"] == "never_taught"]
    assert {r["attack"] for r in fiction} == {"quantisation", "definition", "undoing"}
    copies = {"taught", "erased", "never", "attacked", "never_attacked"}
    assert {r["metric"] for r in fiction} == copies | {"above_control", "steps", "tokens"}
    assert made.count("npo") == 1


def test_an_attack_that_cannot_be_run_is_named_in_the_provenance(lm, tmp_path):
    table = ResultTable("attacks", lm, tmp_path)
    attacks(lm, table, ["golf"], ("original",), ("language",), n_questions=2, budget=SMALL)
    (reason,) = json.loads(table.path.with_suffix(".json").read_text())["settings"]["skipped"]
    assert reason.startswith("golf original language: No question about Golf has a translation")


def test_matched_edits_have_the_wanted_loss(lm):
    from conceptlab.evaluation import score_questions
    from conceptlab.reproduce.attacks import matched_edit

    concept = load_concept("japan")
    noise = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    ladder = [WeightEdit(lm.name, {lm.down_proj_name(1): Dense(x * noise)}) for x in (0.0, 0.3, 3.0)]
    before = score_questions(lm, concept.dev)
    known = before.correct
    lost = []
    for edit in ladder:
        with edit.applied(lm):
            lost.append(float((before.margin - score_questions(lm, concept.dev).margin)[known].mean()))
    for i in (0, 2):
        drop = lost[i] / float(before.margin[known].mean())
        assert matched_edit(lm, concept, ladder, drop) is ladder[i]
    with pytest.raises(ConceptLabError, match="ladder of edits is empty"):
        matched_edit(lm, concept, [], 0.5)


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
