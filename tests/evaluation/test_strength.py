"""The search over strengths: gates, objective, monotone pruning, and going on after an interruption."""

import math

import pytest
import torch

from conceptlab.core import ConceptLabError, NotPossible
from conceptlab.data import load_concept
from conceptlab.edits import WeightEdit
from conceptlab.edits.weight_edit import Dense
from conceptlab.evaluation import Judge, QuestionScores, SearchConfig, Trial, compare, search_settings
from conceptlab.evaluation import strength as search
from conceptlab.evaluation.strength import judged

AXES = {"tau": (0.9, 0.5, 0.1), "mu": (1.0, 2.0, 4.0, 8.0)}


class FakeJudge:
    """Target falls and general ability falls with strength = rank of mu + rank of tau."""

    made = 0

    def __init__(self, lm, concept, cfg):
        self.cfg = cfg

    def __call__(self, edit, setting):
        FakeJudge.made += 1
        strength = AXES["tau"].index(setting["tau"]) + AXES["mu"].index(setting["mu"])
        target, general = 1 - 0.2 * strength, 1 - 0.1 * strength
        passed = target <= self.cfg.target_gate + 1e-9 and general >= self.cfg.general_gate - 1e-9
        return Trial(setting, target, general, general, 1.0, 1.0 - abs(strength - 3), 0.0, passed)


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.5)


def fake(lm, monkeypatch, cfg=None, path=None):
    monkeypatch.setattr(search, "Judge", FakeJudge)
    FakeJudge.made = 0
    make = lambda tau, mu: WeightEdit(lm.name, {})  # noqa: E731
    return search_settings(lm, load_concept("golf"), AXES, make, cfg or SearchConfig(), path)


def strength(setting):
    return AXES["tau"].index(setting["tau"]) + AXES["mu"].index(setting["mu"])


def test_the_best_cell_is_found_and_only_hopeless_ones_are_skipped(lm, monkeypatch):
    found = fake(lm, monkeypatch)
    assert strength(found.best.setting) == 3 and found.best.passed
    assert len(found.cells) + len(found.skipped) == 12 and len(found.skipped) >= 2
    assert all(strength(s) in (0, 1, 4, 5) for s in found.skipped)  # 2 and 3 pass, so nothing can rule them out


def test_too_strong_rules_out_stronger_cells_only(lm, monkeypatch):
    found = fake(lm, monkeypatch, SearchConfig(prune_weak=False, general_gate=0.65))
    computed = {(c.setting["tau"], c.setting["mu"]) for c in found.cells}
    assert all(strength(s) >= 4 for s in found.skipped) and found.skipped
    for s in found.skipped:  # each has a computed cell below it that failed
        assert any(
            AXES["tau"].index(t) <= AXES["tau"].index(s["tau"]) and AXES["mu"].index(m) <= AXES["mu"].index(s["mu"])
            for t, m in computed
            if strength({"tau": t, "mu": m}) >= 4
        )


def test_finished_cells_are_kept(lm, monkeypatch, tmp_path):
    path = tmp_path / "search.json"
    first = fake(lm, monkeypatch, path=path)
    assert FakeJudge.made == len(first.cells)
    again = fake(lm, monkeypatch, path=path)
    assert FakeJudge.made == 0 and again == first
    with pytest.raises(ConceptLabError, match="belongs to a search with other settings"):
        fake(lm, monkeypatch, SearchConfig(n_questions=3), path)


@pytest.mark.parametrize(
    "damage",
    ["", "{}", "[]", "null", "7", '"text"', "{", '{"search": 1, "cells": []}', '{"search": 1, "cells": {"1": 3}}',
     '{"search": 1, "cells": {"x": {}}}', '{"search": 1, "cells": {"1": {"target": 0}}}', "\udcff", "cut"],
)  # fmt: skip
def test_a_damaged_file_of_cells_stops_the_search_and_is_no_result(lm, monkeypatch, tmp_path, damage):
    path = tmp_path / "search.json"
    fake(lm, monkeypatch, path=path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else damage.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConceptLabError, match="is not a file of finished cells") as caught:
        fake(lm, monkeypatch, path=path)
    assert not isinstance(caught.value, NotPossible) and "\n" not in str(caught.value)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConceptLabError, match="is not a file of finished cells"):
        fake(lm, monkeypatch, path=path)


def test_an_interrupted_search_goes_on(lm, monkeypatch, tmp_path):
    whole = fake(lm, monkeypatch)
    calls = []

    class Breaks(FakeJudge):
        def __call__(self, edit, setting):
            if len(calls) == 2:
                raise KeyboardInterrupt
            calls.append(setting)
            return super().__call__(edit, setting)

    monkeypatch.setattr(search, "Judge", Breaks)
    with pytest.raises(KeyboardInterrupt):
        search_settings(
            lm, load_concept("golf"), AXES, lambda tau, mu: WeightEdit(lm.name, {}), path=tmp_path / "s.json"
        )
    assert fake(lm, monkeypatch, path=tmp_path / "s.json") == whole
    assert FakeJudge.made == len(whole.cells) - 2


def test_an_empty_grid(lm):
    with pytest.raises(ConceptLabError, match="grid is empty"):
        search_settings(lm, load_concept("golf"), {"mu": ()}, lambda mu: WeightEdit(lm.name, {}))


def test_on_a_model_noise_is_judged_as_what_it_is(lm):
    """An edit of size 0 leaves everything; the gates and the objective say so."""
    name = lm.down_proj_name(1)
    noise = torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    before = lm.down_proj(1).clone()
    found = search_settings(
        lm, load_concept("golf"), {"c": (0.0, 20.0)}, lambda c: WeightEdit(lm.name, {name: Dense(c * noise)}),
        SearchConfig(n_questions=10, n_texts=2, prune_weak=False),
    )  # fmt: skip
    still, broken = found.cells
    assert (still.target, still.neighbour, still.general, still.coherence) == (1, 1, 1, 1)
    assert still.objective == 0 and not still.passed and abs(still.selectivity) < 1e-5
    assert broken.coherence < 1 and torch.equal(lm.down_proj(1), before)


def test_judging_by_hand():
    from cards import card, right

    base = card(right(20), right(20), right(20), [20.0])
    cell = judged(compare(base, card(right(8), right(20), right(17), [20.0])), {"mu": 1.0}, SearchConfig())
    assert cell.target == pytest.approx(0.2) and cell.general == pytest.approx(0.8) and cell.passed
    # 12 of 20 lost 2 nats on the target, 3 of 20 on general questions
    assert cell.selectivity == pytest.approx(1.2 - 3 * 0.3)
    weak = judged(compare(base, card(right(16), right(20), right(20), [20.0])), {"mu": 1.0}, SearchConfig())
    assert not weak.passed and weak.rank < cell.rank
    babble = card(right(8), right(20), right(20), [22.0])  # 2 nats more on a text of 10 tokens
    spoilt = judged(compare(base, babble), {"mu": 1.0}, SearchConfig())
    assert spoilt.coherence == pytest.approx(math.exp(-0.2)) and not spoilt.passed
    assert judged(compare(base, babble), {"mu": 1.0}, SearchConfig(coherence_gate=0.8)).passed


def test_a_cell_that_babbles_rules_out_stronger_ones():
    def cell(target, coherence):
        return Trial({}, target, 1.0, 1.0, coherence, 0.5, 0.0, False)

    cfg = SearchConfig()
    assert search._ruled_out((2,), {(1,): cell(0.1, 0.5)}, cfg) and not search._ruled_out(
        (0,), {(1,): cell(0.1, 0.5)}, cfg
    )
    assert search._ruled_out((0,), {(1,): cell(0.9, 1.0)}, cfg) and not search._ruled_out(
        (2,), {(1,): cell(0.9, 1.0)}, cfg
    )
    assert not search._ruled_out((0,), {(1,): cell(0.9, 0.5)}, cfg), (
        "one that breaks the model says nothing of weaker ones"
    )


def test_the_judge_asks_the_last_questions_and_clues_of_known_facts(lm, monkeypatch):
    concept, real = load_concept("golf"), search.score_form

    def understood(lm, questions, form):
        found = real(lm, questions, form)
        gold = torch.nn.functional.one_hot(found.answers, found.logprobs.shape[1])
        right = torch.tensor([-1 if q.id == unknown else 1 for q in questions])
        return QuestionScores(found.logprobs + 50 * right[:, None] * gold, found.answers)

    unknown = Judge(lm, concept, SearchConfig(n_questions=4, n_asked=12, n_texts=1)).questions["target"][0].id
    monkeypatch.setattr(search, "score_form", understood)
    judge = Judge(lm, concept, SearchConfig(n_questions=4, n_asked=12, n_clues=2, n_texts=1))
    last = {q.id for q in concept.dev[-12:]}
    assert judge.questions["target"] and {q.id for q in judge.questions["target"]} <= last
    assert all(q in judge.questions["target"] and q.clue and q.id != unknown for q in judge.clues)
    assert len(judge.clues) == min(2, len(judge.questions["target"]) - 1) > 0
    scores = judge.base.scores["target"]
    assert len(scores.answers) == len(judge.questions["target"]) + len(judge.clues)
    assert bool(scores.correct[len(judge.questions["target"]) :].all()), "only clues that the original understands"
    cell = judge(WeightEdit(lm.name, {}), {"c": 0.0})
    assert (cell.target, cell.neighbour, cell.general, cell.coherence) == (1, 1, 1, 1)
