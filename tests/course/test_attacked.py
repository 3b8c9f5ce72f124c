"""Live attacks of notebook 05 as tables: every gain stands beside its control, and what is no test says nothing."""

import dataclasses

import pytest
import torch

from conceptlab.attacks import Budget, setting_for
from conceptlab.core import bootstrap
from conceptlab.course import attacked
from conceptlab.data import load_concept, translatable
from conceptlab.edits import Dense, WeightEdit, applied
from conceptlab.evaluation import QuestionScores, score_questions

SMALL = Budget(steps=1, n_facts=10, strengths=(("role", (1,)), ("paraphrase", (1,)), ("language", (1,))))


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(d_model=32, initializer_range=0.3)


@pytest.fixture
def edits(lm):
    noise = torch.randn(2, 32, 64, generator=torch.Generator().manual_seed(0))
    return [WeightEdit(lm.name, {lm.down_proj_name(1): Dense(x)}) for x in noise]


@pytest.fixture
def setting():
    concept = load_concept("japan")
    asked = sorted(concept.dev, key=lambda q: not translatable([q]))[:6]
    return setting_for(concept, [*asked, *[q for q in concept.dev if not translatable([q])][:2]], SMALL)


def test_a_prompt_stands_beside_another_subject_and_a_random_edit(lm, edits, setting):
    models = {"original": None, "erased": edits[0], "random edit": edits[1]}
    start = {}
    for name, model in models.items():
        with torch.no_grad(), applied(model, lm):
            start[name] = score_questions(lm, setting.questions)
    low = QuestionScores(start["original"].logprobs - 0.0, start["original"].answers)
    low.logprobs.scatter_(1, low.answers[:, None], -50.0)  # an original so bad that every prompt is a test
    grid, answers = attacked.prompts_grid(lm, models, start | {"original": low}, setting, ("role", "language"))
    role, language = grid.cells
    assert role[0] == "role (1)" and language[0].startswith("language (")
    assert role[2] == str(bootstrap(answers["role"].margin - start["erased"].margin))
    assert "-" not in role[3:5] and role[-1] == "" and role[5] == "-", "there is no share of a gap below 0"
    assert language[3] == "-" and language[4] != "-", "a translation has no other subject"
    assert len(answers["language"].answers) < len(answers["role"].answers)
    good = dataclasses.replace(low, logprobs=-low.logprobs)
    assert attacked.prompts_grid(lm, models, start | {"original": good}, setting, ("role",))[0].cells[0][2:] == [
        "-", "-", "-", "-", "no test",
    ]  # fmt: skip


def test_what_is_put_back_has_a_control_of_layers_and_of_directions(lm, edits, setting):
    top = score_questions(lm, setting.questions)
    with torch.no_grad(), edits[0].applied(lm):
        erased = score_questions(lm, setting.questions)
    grid = attacked.put_back_grid(lm, edits[0], setting, top, erased, [1], [0])
    assert [row[2] for row in grid.cells[:2]] == ["edited layer", "control: not edited"]
    assert grid.cells[2][2].startswith("as many random directions")


def test_gains_have_signs_and_a_dash_where_there_is_none():
    assert attacked.gain_cells({"a": (1.0, -0.25, 2.0)}, ("a", "b")) == ["+1.00 [-0.25, +2.00]", "-"]
