"""Scorers on judges that know the truth, know nothing, or lie; steering against whole forward passes."""

import numpy as np
import pytest
import torch

from contexts import context, random_label


# ---- numbers ----------------------------------------------------------------------------------------------
def test_auroc_of_rows_is_that_of_each_row():
    from conceptlab.core import auroc_interval, auroc_rows

    generator = torch.Generator().manual_seed(0)
    firing = torch.randint(0, 5, (6, 13), generator=generator).float()
    silent = torch.randint(0, 4, (6, 9), generator=generator).float()
    expected = [auroc_interval(a, b, 10).value for a, b in zip(firing, silent, strict=True)]
    assert auroc_rows(firing, silent).tolist() == pytest.approx(expected, abs=1e-6)


def test_one_table_gives_balanced_accuracy_and_f1():
    from conceptlab.core import confusion, f1_interval

    firing, silent = torch.tensor([3.0, 2.0, 0.0]), torch.tensor([0.0, 0.0, 1.0, 5.0])
    table = confusion(firing, silent, 1.0)
    assert (table.hits, table.misses, table.false_alarms, table.rejections) == (2, 1, 1, 3)
    assert table.balanced_accuracy == pytest.approx((2 / 3 + 3 / 4) / 2)
    precision, recall = 2 / 3, 2 / 3
    assert table.f1 == pytest.approx(2 * precision * recall / (precision + recall))
    found = f1_interval(firing, silent, 1.0, 500)
    assert found.value == pytest.approx(table.f1) and 0 <= found.low < found.value < found.high <= 1
    assert f1_interval(firing, silent, 0.5, 1).value == confusion(firing, silent, 0.5).f1
    assert f1_interval(torch.ones(4), torch.zeros(9), 0.5, 50)[:3] == (1.0, 1.0, 1.0)
    assert confusion(firing, silent, 9.0).f1 == 0


def test_correlation_and_its_interval_by_brute_force():
    from conceptlab.core import correlation_interval

    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, generator=generator)
    y = 3 * x + 2 * torch.randn(40, generator=generator) + 100
    groups = torch.arange(40) // 5
    found = correlation_interval(x, y, groups, 200, seed=7)
    assert found.value == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6) and found.n == 8
    picks = torch.randint(8, (200, 8), generator=torch.Generator().manual_seed(7))
    rows = [torch.cat([(groups == g).nonzero()[:, 0] for g in draw]) for draw in picks]
    draws = [np.corrcoef(x[r], y[r])[0, 1] for r in rows]
    assert found[1:3] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=1e-6)
    assert correlation_interval(5 - 2 * x, y, groups, 200, seed=7).value == pytest.approx(-found.value, abs=1e-6)
    for constant in (0.0, 0.1, 1e6):
        assert correlation_interval(torch.full((40,), constant), y, groups, 20)[:3] == (0, 0, 0)


# ---- scorers ----------------------------------------------------------------------------------------------
class Knows:
    """A judge that looks up the activation, which a real one cannot, times a factor."""

    name = "knows"

    def __init__(self, factor):
        self.factor = factor

    def judge(self, label, contexts):
        return torch.tensor([self.factor * c.activation for c in contexts])


@pytest.fixture
def examples():
    """A unit that fires on "king", on the third of six words, in 40 contexts; 40 more without a king."""
    from conceptlab.autointerp import UnitExamples

    generator = torch.Generator().manual_seed(2)
    others = "the old sea of gold was won by them all".split()

    def make(word, strength):
        words = [others[i] for i in torch.randint(len(others), (6,), generator=generator)]
        words[2] = word
        heat = tuple(strength if i == 2 else 0.0 for i in range(6))
        return context(" ".join(words), 2, activations=heat, pos=50)

    firing = [make("king", 1.0 + i / 40) for i in range(40)]
    return UnitExamples(0, 0.1, firing[:10], firing, [make("queen", 0.0) for _ in range(40)], [], [])


def king(weight=1.0):
    from conceptlab.autointerp import Label

    return Label(0, "m", "on ' king'", {" king": weight})


def test_scores_of_judges_that_know_the_truth_nothing_or_the_contrary(examples):
    from conceptlab.autointerp import EvidenceJudge, detection, fuzzing, intruder, simulation

    for scorer, best, chance, worst in (
        (detection, 1.0, 0.5, 0.0), (fuzzing, 1.0, 0.5, 0.0), (simulation, 1.0, 0.0, -1.0), (intruder, 1.0, 0.2, 0.0)
    ):  # fmt: skip
        for factor, expected in ((2.0, best), (0.0, chance), (-1.0, worst)):
            found = scorer(Knows(factor), king(), examples, n_resamples=100)
            assert found[:3] == pytest.approx((expected,) * 3, abs=1e-6), scorer.__name__
        assert scorer(EvidenceJudge(), king(), examples, n_resamples=100).value > 0.98 * best
        assert scorer(EvidenceJudge(), king(-1.0), examples, n_resamples=100).value < worst + 0.02


def test_fuzzing_marks_silent_tokens_of_the_same_contexts(examples):
    from conceptlab.autointerp import fuzzing

    judged = []

    class Spy(Knows):
        def judge(self, label, contexts):
            judged.extend(contexts)
            return super().judge(label, contexts)

    assert fuzzing(Spy(1.0), king(), examples, n=7, n_resamples=20).n == 7
    right, wrong = judged[::2], judged[1::2]
    assert [a.tokens for a in right] == [b.tokens for b in wrong]
    assert all(a.place == 2 and b.place != 2 and b.activation == 0 for a, b in zip(right, wrong, strict=True))
    assert len({b.place for b in wrong}) > 1


def test_the_first_token_of_a_row_is_never_asked_for(examples):
    from dataclasses import replace

    from conceptlab.autointerp import simulation
    from conceptlab.autointerp.scorers import measured
    from conceptlab.core import ConceptLabError

    assert measured(examples.top[0]) == [0, 1, 2, 3, 4, 5]
    assert measured(replace(examples.top[0], pos=2)) == [1, 2, 3, 4, 5]
    with pytest.raises(ConceptLabError, match="with activations"):
        simulation(Knows(1.0), king(), replace(examples, spread=[context("no heat")]))


def test_questions_that_cannot_be_asked(examples):
    from dataclasses import replace

    from conceptlab.autointerp import EvidenceJudge, first_contexts, fuzzing, intruder, score_label
    from conceptlab.core import ConceptLabError

    with pytest.raises(ConceptLabError, match="four firing contexts"):
        intruder(EvidenceJudge(), king(), first_contexts(examples, 3))
    everywhere = [replace(e, activations=(1.0,) * 6) for e in examples.spread]
    with pytest.raises(ConceptLabError, match="fires on every token"):
        fuzzing(EvidenceJudge(), king(), replace(examples, spread=everywhere))
    found = score_label(EvidenceJudge(), king(), first_contexts(examples, 3), n_resamples=20)
    assert set(found) == {"fuzzing_auroc", "simulation_r"}, "what cannot be asked is left out"
    sizes = {"fuzzing_auroc": 4, "simulation_r": 6, "intruder_accuracy": 2}
    found = score_label(EvidenceJudge(), king(), examples, n_resamples=20, **sizes)
    assert {metric: interval.n for metric, interval in found.items()} == sizes


def test_every_scorer_takes_every_judge(examples, tiny_llama, encoder_folder):  # noqa: F811
    from conceptlab.autointerp import (
        SCORERS,
        EmbeddingJudge,
        ModelJudge,
        detect,
        detection,
        first_contexts,
        load_encoder,
        score_label,
    )

    few = first_contexts(examples, 8)
    for judge in (ModelJudge(tiny_llama(initializer_range=0.5)), EmbeddingJudge(load_encoder(encoder_folder))):
        found = score_label(judge, king(), few, n_resamples=20, simulation_r=2)
        found["detection"] = detection(judge, king(), few, n_resamples=20)
        assert set(found) == {*SCORERS, "detection"}
        assert all(-1 <= f.low <= f.high <= 1 for f in found.values()) and len({f.value for f in found.values()}) > 2
        (one, _) = detect(judge, [king(), random_label(1, 1)], [few, few], [few, few], n_shuffles=1, n_resamples=20)
        assert one.auroc.value == found["detection"].value and len(one.foreign) == 1 and one.hard is None
        assert one.confusion.hits + one.confusion.misses == 8
        assert one.f1.value == one.confusion.f1
        assert one.balanced_accuracy.value == pytest.approx(one.confusion.balanced_accuracy, abs=1e-6)


# ---- steering ---------------------------------------------------------------------------------------------
@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.3)


@pytest.mark.parametrize("layer", [0, 1])
def test_steering_is_an_addition_to_the_residual_stream(lm, layer):
    from conceptlab.autointerp import SteerConfig, risen_tokens, steered_change

    cfg = SteerConfig(size=0.7, prompts=("They said that the", "It was"), batch_size=4)
    directions = 5 * torch.randn(3, lm.d_model, generator=torch.Generator().manual_seed(0))
    before = {name: p.clone() for name, p in lm.hf.named_parameters()}
    found = torch.cat(list(steered_change(lm, layer, directions, cfg)))
    texts = [lm.tokenizer(p).input_ids for p in cfg.prompts]
    resid = [lm.capture(torch.tensor([ids]), [("resid_post", layer)])["resid_post", layer][0] for ids in texts]
    size = 0.7 * torch.cat([r[1:] for r in resid]).norm(dim=1).mean()
    for direction, change in zip(directions, found, strict=True):
        expected = []
        for ids in texts:

            def push(x, direction=direction):
                return torch.cat([x[:, :1], x[:, 1:] + size * direction / direction.norm()], 1)

            clean = lm.logits(torch.tensor([ids]))[0, -1]
            with lm.intervene({("resid_post", layer): push}):
                expected.append(lm.logits(torch.tensor([ids]))[0, -1] - clean)
        assert torch.allclose(change, torch.stack(expected).mean(0), atol=1e-4) and float(change.abs().max()) > 0.1
    top = found.topk(4).indices
    assert torch.equal(risen_tokens(lm, layer, directions, 4, cfg), top)
    assert all(torch.equal(before[name], p) for name, p in lm.hf.named_parameters())


def test_a_direction_without_length_is_refused(lm):
    from conceptlab.autointerp import steered_change
    from conceptlab.core import ConceptLabError

    with pytest.raises(ConceptLabError, match="length 0"):
        next(steered_change(lm, 0, torch.zeros(1, lm.d_model)))


def test_output_score_is_about_the_named_tokens(lm):
    from conceptlab.autointerp import Label, SteerConfig, named_tokens, output_scores, steered_change
    from conceptlab.core import ConceptLabError

    cfg = SteerConfig(prompts=("They said that the", "It was"))
    directions = torch.randn(1, lm.d_model, generator=torch.Generator().manual_seed(0))
    (change,) = torch.cat(list(steered_change(lm, 0, directions, cfg)))
    order = [i for i in change.argsort().tolist() if lm.tokenizer(lm.words([i])[0]).input_ids == [i]]
    rise, fall = (dict.fromkeys(lm.words(ids), 1.0) for ids in (order[-6:], order[:6]))
    labels = [Label(0, "m", "", tokens=fall, promotes=rise), Label(0, "m", "", tokens=fall), Label(0, "m", "", {})]
    assert sorted(named_tokens(lm, labels[0])) == sorted(order[-6:])
    found = output_scores(lm, 0, directions.repeat(3, 1), labels, cfg, n_resamples=50)
    assert found[0][:3] == (1.0, 1.0, 1.0) and found[1][:3] == (0.0, 0.0, 0.0) and found[2] is None
    with pytest.raises(ConceptLabError, match="One label per direction"):
        output_scores(lm, 0, directions, labels, cfg)


def test_others_are_the_named_tokens_neighbours_in_probability():
    from conceptlab.autointerp.steer import _neighbours

    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    place = order.argsort()
    named = [int(order[0]), int(order[250]), int(order[252]), int(order[499])]
    found = _neighbours(place, order, named, 10)
    assert not set(found) & set(named) and len(found) == len(set(found))
    distance = (place[torch.tensor(found)][:, None] - place[torch.tensor(named)]).abs().amin(1)
    assert int(distance.max()) <= 10
    assert {int(order[i]) for i in (1, 10, 249, 251, 253, 498, 489)} <= set(found)
