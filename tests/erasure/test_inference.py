"""Run-time methods on a tiny model: they act where the detector fires and nowhere else, and leave the weights alone."""

import math
from dataclasses import replace

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.data import load_concept
from conceptlab.edits import Intervention
from conceptlab.erasure import Shared, choose, false_alarms, fit_detector, get_method, latency, methods
from conceptlab.erasure import method as interface
from conceptlab.erasure.inference.corruption import CorruptedPrompts, CorruptionConfig, learned_sigma
from conceptlab.erasure.inference.detector import Detector, DetectorConfig, concept_detector, fit_logistic, prompt_of
from conceptlab.erasure.inference.difference import DifferenceConfig, assistant, train_assistant, uniform_loss
from conceptlab.erasure.inference.notes import Notes
from conceptlab.erasure.inference.refusal import Refusal
from conceptlab.erasure.inference.restriction import RestrictedDecoding, answer_tokens, push_down
from conceptlab.evaluation import depth, depth_base, score_questions
from conceptlab.models import greedy, next_token_loss
from sizes import SMALL
from untouched import TEXTS, assert_untouched, weights

RUN_TIME = ("eco", "uld", "guard", "notes", "in_context_refusal")


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(d_model=32, initializer_range=0.3)


@pytest.fixture
def shared(lm):
    return Shared(lm, load_concept("japan"), {}, SMALL)


def never(lm):
    """A detector that flags nothing."""
    zeros = torch.zeros(lm.d_model)
    return Detector(0, zeros, zeros + 1, zeros, 0.0, 1.0)


def always(lm):
    return replace(never(lm), threshold=-1.0)


def only(lm, prompts):
    """A detector of exactly these prompts."""

    class Only(Detector):
        def flags(self, lm, found):
            return torch.tensor([p in prompts for p in found])

    return Only(**vars(never(lm)))


# ---- detector ---------------------------------------------------------------------------------------------
def test_logistic_regression_finds_the_direction():
    X = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    y = X[:, 0] - X[:, 1] > 0
    w, b = fit_logistic(X, y, 1e-3)
    assert float(((X @ w + b > 0) == y).float().mean()) > 0.95 and abs(float(w[2])) < 0.3 * float(w[0])
    harder, _ = fit_logistic(X, y, 1.0)
    assert float(harder.norm()) < float(w.norm())


def test_a_detector_tells_what_it_was_shown(lm):
    about = [tuple(lm.encode(f"The emperor of Japan has {n} swords")) for n in range(12)]
    other = [tuple(lm.encode(f"A red bus stops {n} times in the town")) for n in range(12)]
    found = fit_detector(lm, about[:8], other[:8])
    assert found.flags(lm, about[8:]).all() and not found.flags(lm, other[8:]).any()
    assert torch.allclose(found.scores(lm, about[8:9]), found.scores(lm, about[8:])[:1], atol=1e-3)
    with pytest.raises(ConceptLabError, match="as many prompts"):
        fit_detector(lm, about[:2], other)


# ---- each method by its equation --------------------------------------------------------------------------
def test_corruption_touches_flagged_prompts_only(lm, shared):
    questions = load_concept("japan").test[:6]
    hit = {prompt_of(lm, q) for q in questions[:3]}
    before = score_questions(lm, questions).logprobs
    with CorruptedPrompts(only(lm, hit), 1.0).applied(lm):
        after = score_questions(lm, questions).logprobs
    moved = (after - before).abs().amax(1)
    assert bool((moved[:3] > 0.01).all()) and float(moved[3:].max()) < 1e-4
    with CorruptedPrompts(always(lm), 1.0).scaled(0.0).applied(lm):
        torch.testing.assert_close(score_questions(lm, questions).logprobs, before, rtol=1e-4, atol=1e-4)


def test_a_scale_is_learned_without_gradients():
    cfg = CorruptionConfig(start=0.1, steps=10)
    found = learned_sigma(lambda sigma: (math.log(sigma) - math.log(0.7)) ** 2, cfg)
    assert found == pytest.approx(0.7, rel=0.15)


def test_the_assistant_starts_uniform_and_learns_what_is_to_be_forgotten(lm):
    assert float(uniform_loss(torch.zeros(3, 50))) == pytest.approx(0, abs=1e-5)
    assert float(uniform_loss(torch.tensor([[5.0, 0.0]]))) > 0.5
    A, B = torch.randn(4, lm.d_model), torch.zeros(lm.d_model, 4)
    assert float(assistant(torch.randn(2, 3, lm.d_model), A, B).abs().max()) == 0
    cfg = DifferenceConfig(steps=30, lr=3e-2, rank=8, alpha=1.0)
    method = train_assistant(lm, TEXTS, ["The bus stops at the town hall every day."], cfg)
    rows, other = lm.pad([lm.encode(t) for t in TEXTS]), lm.pad([lm.encode("The bus stops at the town hall.")])
    losses = [float(next_token_loss(lm, *rows)), float(next_token_loss(lm, *other))]
    with method.applied(lm):
        now = [float(next_token_loss(lm, *rows)), float(next_token_loss(lm, *other))]
    assert now[0] - losses[0] > 1.0 > 3 * abs(now[1] - losses[1])
    ids = torch.tensor([lm.encode(TEXTS[0])])
    x = lm.capture(ids, [("resid_post", method.layer)])["resid_post", method.layer]
    by_hand = lm.logits(ids) - method.alpha * lm.head(assistant(x, method.A, method.B))
    with method.applied(lm):
        torch.testing.assert_close(lm.logits(ids), by_hand, rtol=1e-3, atol=1e-3)


def test_restriction_takes_its_penalty_off_forbidden_tokens(lm):
    rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    assert (rows @ push_down(rows)).tolist() == pytest.approx([-1.0] * 5, abs=0.02)
    tokens = answer_tokens(lm, ["Mount Fuji", "7"])
    assert {lm.decode([i]).strip() for i in tokens[0].nonzero()[:, 0].tolist()} >= {"Mount"}
    assert not tokens[1].any()
    keys = torch.nn.functional.normalize(torch.randn(2, 32), dim=1)
    nothing = torch.zeros(lm.d_vocab, dtype=torch.bool)
    method = RestrictedDecoding(always(lm), keys, tokens, nothing, 2, 6.0)
    ids = torch.tensor([lm.encode("The highest mountain is")])
    before = lm.logits(ids)[0, -1]
    with method.applied(lm):
        after = lm.logits(ids)[0, -1]
    moved = (after - after.mean()) - (before - before.mean())
    assert moved[tokens[0]].tolist() == pytest.approx([-6.0] * int(tokens[0].sum()), abs=0.3)
    with replace(method, detector=never(lm)).applied(lm):
        torch.testing.assert_close(lm.logits(ids)[0, -1], before)


def test_notes_and_refusal_stand_before_the_prompt(lm):
    keys = torch.nn.functional.normalize(torch.randn(3, 32), dim=1)
    notes = Notes(always(lm), keys, ("Question: a?\nAnswer: unknown", "Note b", "Note c"), 1)
    refusal = Refusal("Say nothing.", ("Question: a?\nAnswer: no",), ("Question: b?\nAnswer: yes",), 1)
    plain = greedy(lm, ["Tin is"], 3)
    with refusal.applied(lm):
        assert greedy(lm, ["Tin is"], 3) == greedy(lm, [lm.encode("Tin is")], 3)
        seen = lm.readers.rewrites[0](tuple(lm.encode("Tin is")))
    assert lm.decode(seen).startswith("\n\nSay nothing.\n\nQuestion: b?\nAnswer: yes\n\nQuestion: a?\nAnswer: no")
    for silent in (notes.scaled(0.0), replace(notes, detector=never(lm)), refusal.scaled(0.0)):
        with silent.applied(lm):
            assert greedy(lm, ["Tin is"], 3) == plain
    assert notes.scaled(10.0).n == 3 and refusal.scaled(10.0).n == 1


# ---- as methods -------------------------------------------------------------------------------------------
def test_all_are_methods_that_leave_the_weights_alone(lm, shared, tmp_path, monkeypatch):
    monkeypatch.setattr(interface, "cache_dir", lambda: tmp_path)
    before = weights(lm)
    base = depth_base(lm, load_concept("japan").test[:3])
    for name in RUN_TIME:
        method = get_method(name)
        assert method.kind == "run-time" and len(method.knobs) == 1
        fitted = choose(name, lm, shared.concept, shared)
        assert isinstance(fitted.intervention, Intervention) and "object at" not in repr(fitted.intervention)
        assert repr(fitted.intervention) != repr(fitted.intervention.scaled(0.5)) or name == "in_context_refusal"
        with pytest.raises(ConceptLabError, match="works at run time"):
            _ = fitted.edit
        found = depth(lm, base, fitted.intervention)
        if name in ("uld", "guard"):
            assert float(found.edited.abs().max()) < 1e-3, "what changes the output alone is not deep"
    assert_untouched(lm, before)
    assert {m.kind for m in methods().values()} >= {"run-time"} and not lm.is_hooked


def test_the_detector_is_fitted_on_nothing_that_is_judged(lm, shared, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "conceptlab.erasure.inference.detector.fit_detector",
        lambda lm, about, other, cfg: seen.append((about, other)) or never(lm),
    )
    concept_detector(shared, DetectorConfig(n_texts=4))
    about, other = seen[0]
    judged = {prompt_of(lm, q) for questions in shared.judge.questions.values() for q in questions}
    tested = {prompt_of(lm, q) for q in (*shared.concept.test, *shared.concept.neighbour.test)}
    assert not (judged | tested) & {*about, *other} and len(about) > 10 and len(other) > 20


def test_alarms_and_latency(lm):
    questions = load_concept("japan").test[:4]
    hit = {prompt_of(lm, questions[0])}
    assert false_alarms(lm, CorruptedPrompts(only(lm, hit), 1.0), questions).value == 0.25
    assert false_alarms(lm, CorruptedPrompts(never(lm), 1.0), questions).value == 0
    assert latency(lm, CorruptedPrompts(never(lm), 1.0), questions, 1) > 0
