"""The methods by their registry entries: each lowers what it should, in one training for all scales; and its rows."""

from dataclasses import replace

import pytest
import torch

from conceptlab.core import NotPossible
from conceptlab.data import general_questions, load_concept
from conceptlab.edits import applied
from conceptlab.erasure import Shared, TuningConfig, get_method, methods
from conceptlab.erasure.finetuning import fit as fitting
from conceptlab.erasure.finetuning import materials
from conceptlab.erasure.finetuning.loop import planned
from sizes import SMALL
from untouched import assert_untouched, weights

NAMES = [name for name, method in methods().items() if method.kind == "fine-tuning"]


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.3)


@pytest.fixture
def shared(lm):
    return Shared(lm, load_concept("golf"), {}, SMALL)


def quick(name, **fields):
    """The method's config for a tiny model: larger steps, fewer of them."""
    method = get_method(name)
    tuning = replace(
        method.config.tuning, steps=4, batch_size=2, lr=3e-3 if method.config.tuning.rank is None else 3e-2
    )
    if name == "continual":  # a random model is beyond the bound from the start
        fields["forget"] = replace(method.config.forget, bound=100.0)
    return method, replace(method.config, tuning=tuning, **fields)


def test_the_family_is_complete():
    on_texts = "gradient_ascent gradient_difference ga_kl npo npo_alone npo_kl simnpo task_vector continual".split()
    on_answers = "dpo refusal r_tuning ihl loku flat poisoning".split()
    assert sorted(NAMES) == sorted(on_texts + on_answers)


def test_every_method_lowers_its_own_loss_on_what_it_trained_on(lm, shared, monkeypatch):
    """The task vector raises the loss that it was trained to lower. One model for all: each leaves it as it was."""
    seen, before, real = [], weights(lm), fitting.finetune
    monkeypatch.setattr(fitting, "finetune", lambda *a: seen.append(a) or real(*a))
    for name in NAMES:
        seen.clear()
        method, config = quick(name, weight=0.0)  # the other term would pull elsewhere
        edit = method.fit(lm, shared.concept, config, shared)
        material, cfg = seen[0][2:4] if seen else (materials.texts(lm, shared, 24), config.trained(lm, 0))
        steps, term, values = planned(lm, material, cfg), config.forget, []
        with torch.no_grad():
            references = [term.reference(lm, step, False) for step in steps]
            for change in (None, edit):
                with applied(change, lm):
                    values.append(sum(float(term(lm, *at)) for at in zip(steps, references, strict=True)))
        assert (values[1] < values[0]) == (name != "task_vector"), (name, values)
    assert_untouched(lm, before)


def test_one_training_serves_all_scales(lm, shared, monkeypatch):
    method, config = quick("npo")
    trained, real = [], fitting.finetune
    monkeypatch.setattr(fitting, "finetune", lambda *a: trained.append(a) or real(*a))
    half, whole = (method.fit(lm, shared.concept, replace(config, scale=s), shared) for s in (0.5, 1.0))
    assert len(trained) == 1
    for name, change in whole.changes.items():
        torch.testing.assert_close(2 * half.changes[name].dense(), change.dense())
    method.fit(lm, shared.concept, replace(config, rate=2.0), shared)
    method.fit(lm, shared.concept, config, shared)
    assert len(trained) == 2 and trained[1][3].lr == 2 * trained[0][3].lr
    quick("gradient_ascent")[0].fit(lm, shared.concept, quick("gradient_ascent")[1], shared)
    method.fit(lm, shared.concept, config, shared)
    assert len(trained) == 4, "the trainings of the method before are let go"


def test_rates_are_those_that_the_weights_bear(lm):
    config = fitting.FinetunedConfig(rate=2.0, tuning=TuningConfig(lr=1e-3))
    assert config.trained(lm, 5).lr == pytest.approx(2e-3) and config.trained(lm, 5).seed == 5
    lm.name = "gemma3-270m"
    assert config.trained(lm, 0).lr == pytest.approx(2e-4)


def test_a_training_that_overshoots_ends_early(lm, shared):
    method, config = quick("gradient_ascent")
    config = replace(config, tuning=replace(config.tuning, every=1, lr=1e-2))
    whole, early = (method.fit(lm, shared.concept, replace(config, stop=s), shared) for s in (0.0, 1e-4))
    assert whole.info["steps"] == 4 > early.info["steps"]


# ---- what they train on -----------------------------------------------------------------------------------
def test_nothing_that_a_strength_is_chosen_on_is_trained_on(lm, shared):
    judged = {q.id for found in shared.judge.questions.values() for q in found}
    shown, kept = ({q.id for q in facts} for facts in (shared.forget_facts, shared.keep_facts))
    assert shown and kept and not (shown | kept) & judged
    concept = shared.concept
    dev = {q.id for q in (*concept.dev, *concept.neighbour.dev, *general_questions("dev"))}
    assert shown | kept <= dev and not shown & kept
    near = {q.id for q in concept.neighbour.dev}
    assert abs(len(kept & near) - len(kept - near)) <= 2


def test_answers_are_marked_and_refusals_stand_beside_them(lm, shared):
    found = materials.refusals(lm, shared, 24)
    facts = shared.forget_facts
    assert len(found.forget) == len(found.instead) == len(facts) and found.keep
    for q, row, other in zip(facts, found.forget, found.instead, strict=True):
        assert lm.decode(row.ids[row.start :]) == f" {q.gold}"
        assert lm.decode(other.ids[other.start :]).strip() in materials.REFUSALS
        assert row.ids[: row.start] == other.ids[: other.start] and q.q[-20:] in lm.decode(row.ids[: row.start])
    assert {lm.decode(x.ids[x.start :]).strip() for x in found.instead} == set(materials.REFUSALS)


def test_wrong_answers_are_the_likeliest_wrong_options(lm, shared):
    found = materials.wrong_answers(lm, shared, 24)
    for q, other in zip(shared.forget_facts, found.instead, strict=True):
        said = lm.decode(other.ids[other.start :]).strip()
        assert said in q.options and said != q.gold


def test_certainty_follows_the_answer(lm, shared):
    found = materials.certainty(lm, shared, 24)
    for rows, said in ((found.forget, materials.UNSURE), (found.keep, materials.SURE)):
        assert all(lm.decode(r.ids).endswith(f"{materials.ASKED} {said}") for r in rows)


def test_where_every_dev_question_is_judged_there_is_nothing_to_show(lm, shared, monkeypatch):
    monkeypatch.setattr(Shared, "forget_facts", [])
    with pytest.raises(NotPossible, match="no dev question that could be shown"):
        materials.answers(lm, shared, 24)
