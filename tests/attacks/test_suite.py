"""The suite on a tiny model: every attack runs, none leaks, none leaves a trace; the table, and the command line."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

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
    register_attack,
    run_attack,
    setting_for,
    share,
    suite,
    summarise,
)
from conceptlab.core import ConceptLabError, share_difference
from conceptlab.data import Question, leaked, load_concept, load_fiction, translatable
from conceptlab.edits import WeightEdit, applied
from conceptlab.edits.weight_edit import Dense
from conceptlab.evaluation import QuestionScores, closest, score_questions

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
    table = torch.tensor([[0.0, -1], [0.0, -1.1], [0.0, -0.9], [0.0, -1]])
    answers = torch.zeros(4, dtype=torch.long)
    original, erased = QuestionScores(table, answers), QuestionScores(table.flip(1), answers)
    half = QuestionScores((original.logprobs + 3 * erased.logprobs) / 4, answers)
    concept, questions = chosen()
    setting = setting_for(concept, questions, SMALL)
    result = AttackResult((7,), (half,), (), Cost(0, 0, 0.0), labels=("x",))
    found = summarise("relearning", result, original, erased, setting)["x"]
    assert found["value"].value == pytest.approx(-0.5) and found["gain"].value == pytest.approx(0.5)
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
    top = AttackResult((1,), (Hits(torch.tensor([1.0, 1, 1, 1])),), (), Cost(0, 0, 0.0))
    found = AttackResult((1,), (Hits(torch.tensor([1.0, 0, 1, 0])),), (), Cost(0, 0, 0.0), (Hits(torch.ones(4) / 4),))
    kept = summarise("logit_lens", found, scores, scores, setting, top)["1"]["kept"]
    assert kept.value == pytest.approx((0.5 - 0.25) / (1 - 0.25)) and kept.low < 0 < kept.high
    poor = AttackResult((1,), (Hits(torch.tensor([1.0, 1, 1, 0])),), (), Cost(0, 0, 0.0))
    assert "kept" not in summarise("logit_lens", found, scores, scores, setting, poor)["1"], "3 of 4 may be guessed"
    result = run_attack("forms", lm, edit, setting)
    assert float(floor_of("forms", result, 0).mean()) == 0.25 and floor_of("relearning", result, 0) is None


def constant(model, x):
    return WeightEdit(model.name, {model.down_proj_name(1): Dense(torch.full((32, 64), x))}, {"x": x})


def test_the_edit_closest_to_the_wanted_loss_is_taken(lm):
    ladder = [constant(lm, x) for x in (0.0, 0.3, 3.0)]

    def lost(edit):
        return 2 * edit.info["x"]

    assert closest(lost, ladder, 0.7) == (ladder[1], 1) and closest(lost, ladder, 50.0)[0] is ladder[2]
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


def test_shares_of_different_questions_are_not_compared():
    one, two = torch.ones(3), torch.zeros(3)
    assert not share_difference((one, two, two), (two, two, two)).measurable
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


def test_the_verb_attack_refuses_what_is_no_edit_of_this_model(lm, edit, tmp_path, monkeypatch, capsys):
    import conceptlab.models

    monkeypatch.setattr(conceptlab.models, "load_model", lambda name: lm)
    monkeypatch.setattr(type(lm), "logits", lambda *_: pytest.fail("work before the check"))
    monkeypatch.setattr("conceptlab.experiments.budget_for", lambda *_: pytest.fail("work before the check"))
    name = lm.down_proj_name(1)
    noise = torch.ones(32, 64)
    for i, bad in enumerate((float("nan"), float("inf"), -float("inf"))):
        noise[3, 5] = bad
        path = tmp_path / f"nan{i}.st"
        save_file({f"{name}|delta": noise}, path, {"model": lm.name, "info": "{}"})
        assert cli.main(["attack", "japan", "--edit", str(path)]) == 1
        assert "NaN or infinite" in capsys.readouterr().err
    other = WeightEdit("another-model", edit.changes)
    other.save(tmp_path / "other.st")
    assert cli.main(["attack", "japan", "--edit", str(tmp_path / "other.st")]) == 1
    assert "was made for another-model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--lr", "nan"], "--lr is nan"), (["--lr", "-1"], "--lr is -1"), (["--lr", "0"], "--lr is 0"),
     (["--lr", "inf"], "--lr is inf"), (["--questions", "0"], "--questions is 0"), (["--questions", "-3"], "is -3")],
)  # fmt: skip
def test_settings_of_the_verb_attack_are_checked_first(options, message, monkeypatch, capsys):
    monkeypatch.setattr("conceptlab.models.load_model", lambda name: pytest.fail("a model was loaded"))
    assert cli.main(["attack", "japan", *options]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("lr", "rates"), [(None, (1e-5, 7e-5)), ("2e-6", (2e-6, 6e-6))])
def test_the_rates_of_the_verb_attack_are_the_models_or_those_asked_for(lm, monkeypatch, lr, rates):
    import conceptlab.attacks
    import conceptlab.experiments

    seen = []

    def stop(_concept, _questions, budget):
        seen.append((budget.lr, budget.lora_lr))
        raise ConceptLabError("enough.")

    monkeypatch.setattr("conceptlab.models.load_model", lambda name: lm)
    monkeypatch.setattr(conceptlab.attacks, "setting_for", stop)
    monkeypatch.setattr(
        conceptlab.experiments, "budget_for", lambda _, b: dataclasses.replace(b, lr=1e-5, lora_lr=7e-5)
    )
    assert cli.main(["attack", "japan", "--questions", "4", *([] if lr is None else ["--lr", lr])]) == 1
    assert seen == [pytest.approx(rates)]


# ---- docs/adding_an_attack.md -----------------------------------------------------------------------------
def ask_twice(lm, intervention, setting):
    """The same questions again: an attack that cannot work, as an example."""
    with torch.no_grad(), applied(intervention, lm):
        scores = setting.score(lm)
    return AttackResult(steps=(1,), values=(scores,), losses=(), cost=Cost(0, 0, 0.0))


@pytest.mark.parametrize("way", ["register", "entry point"])
def test_an_attack_from_outside_the_package(lm, edit, monkeypatch, way):
    monkeypatch.setattr(suite, "SUITE", dict(suite.SUITE))
    if way == "register":
        register_attack("ask_twice", ask_twice)
    else:
        entry = type("Entry", (), {"name": "ask_twice", "load": lambda self: ask_twice})()
        monkeypatch.setattr(suite, "entry_points", lambda group: [entry] if group == suite.GROUP else [])
    concept = load_concept("japan")
    setting = setting_for(concept, known_questions(lm, concept, 4), SMALL)
    result = run_attack("ask_twice", lm, edit, setting)
    with applied(edit, lm):
        erased = setting.score(lm)
    assert torch.equal(result.last.margin, erased.margin)
    (found,) = summarise("ask_twice", result, setting.score(lm), erased, setting).values()
    assert found["gain"].value == 0
    with pytest.raises(ConceptLabError, match="There is an attack 'relearning' already"):
        register_attack("relearning", ask_twice)
