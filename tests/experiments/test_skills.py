"""Skills forgotten on a tiny model: the parts of a task, what is written, and that an interrupted run goes on."""

import importlib

import pytest

from conceptlab.core import ConceptLabError, contents
from conceptlab.erasure import TuningConfig
from conceptlab.experiments import SKILLS, SkillsConfig
from conceptlab.experiments import skills as run
from conceptlab.experiments.skills import load_skill

TRAINING = TuningConfig(steps=2, batch_size=4, n_ctx=64, lr=1e-3, weights="down_proj")
TINY = SkillsConfig(
    n_taught=6, n_trained=6, n_probed=12, n_heldout=8, n_others=4, random_draws=2, shuffles=2, probe_every=1,
    tuning=TRAINING, forgetting=TRAINING,
)  # fmt: skip
TASKS = ("agreement", "sentiment")


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(n_layers=2)


def values(path):
    keys = ("concept", "method", "attack", "budget", "metric")
    return {tuple(r[k] for k in keys): (r["value"], r["low"], r["high"]) for r in contents(path).rows}


@pytest.mark.parametrize("name", SKILLS)
def test_the_parts_of_a_task_share_no_text(name):
    skill = load_skill(name, SkillsConfig())
    parts = [set(p.texts) for p in (skill.taught, skill.trained, skill.probed, skill.heldout)]
    assert [len(p) for p in parts] == [64, 60, 100, 60]
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert len(skill.words) == len(set(skill.words)) > max(skill.heldout.labels)


@pytest.mark.parametrize("name", TASKS)
def test_held_out_items_of_templates_have_words_of_their_own(name):
    skill = load_skill(name, SkillsConfig())
    assert not set(skill.heldout.groups) & {*skill.taught.groups, *skill.trained.groups, *skill.probed.groups}


def test_too_many_items_are_refused():
    with pytest.raises(ConceptLabError, match="ask for fewer"):
        load_skill("sentiment", SkillsConfig(n_taught=400))


def test_a_run_fills_its_cells_and_its_means(lm, tmp_path):
    path = tmp_path / "skills.csv"
    assert run(lm, path, tasks=TASKS, config=TINY) == path
    found = values(path)
    cells = {key[:4] for key in found}
    for task, other in (TASKS, TASKS[::-1]):
        assert (task, "original", "", "") in cells
        for arm, draws in (("random", "01"), ("true", "0"), ("salad", "0")):
            assert {(task, arm, x, k) for x in ("", other) for k in (*draws, "all")} <= cells
        assert (task, "random", "", "all", "minus_true_right_heldout") in found
        assert (task, "original", "", "", "letters") in found
        before = float(found[task, "original", "", "", "accuracy_heldout"][0])
        after = [float(found[task, "random", "", k, "accuracy_heldout"][0]) for k in "01"]
        lost = float(found[task, "random", "", "all", "lost_right_heldout"][0])
        assert lost == pytest.approx(before - sum(after) / 2, abs=1e-3)


def test_an_interrupted_run_goes_on_to_the_same_numbers(lm, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    run(lm, whole, tasks=TASKS, config=TINY)
    module = importlib.import_module("conceptlab.experiments.skills")  # the name alone is the function
    trained = module.tuned
    calls = []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return trained(*arguments)

    monkeypatch.setattr(module, "tuned", failing)
    with pytest.raises(KeyboardInterrupt):
        run(lm, cut, tasks=TASKS, config=TINY)
    monkeypatch.setattr(module, "tuned", trained)
    run(lm, cut, tasks=TASKS, config=TINY)
    assert values(cut) == values(whole)


def test_a_finished_table_goes_on_with_an_arm_and_trains_nothing_twice(lm, tmp_path, monkeypatch):
    path = tmp_path / "skills.csv"
    run(lm, path, methods=("random",), tasks=TASKS, config=TINY)
    assert not any(key[1] == "true" for key in values(path))
    run(lm, path, methods=("random", "true"), tasks=TASKS, config=TINY)
    assert ("agreement", "random", "", "all", "minus_true_right_heldout") in values(path)
    module = importlib.import_module("conceptlab.experiments.skills")
    monkeypatch.setattr(module, "tuned", lambda *_: pytest.fail("nothing was left to train"))
    run(lm, path, methods=("random", "true"), tasks=TASKS, config=TINY)


@pytest.mark.parametrize("wrong", [{"methods": ("noise",)}, {"tasks": ("chess",)}])
def test_unknown_arms_and_tasks_are_refused(lm, tmp_path, wrong):
    with pytest.raises(ConceptLabError, match="there are"):
        run(lm, tmp_path / "skills.csv", config=TINY, **wrong)
